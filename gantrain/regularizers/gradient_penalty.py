"""WGAN-GP: Gulrajani et al., Improved Training of Wasserstein GANs, 1704.00028, equation 3.

weight * E (||grad s(x~)|| - target)^2,  x~ = eps x + (1 - eps) G(z),  eps ~ U[0, 1].
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from gantrain.game.parts import Game, Hooks, Step
from gantrain.regularizers._gradients import image_gradients, refuses_batch_norm


class Regularizer(Hooks):
    """target = 0 pulls the gradient to 0 between the samples, as 1807.00734 found useful."""

    differentiates_twice = True
    keeps_lipschitz = True

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 10.0,
        target: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        super().__init__()
        self._weight, self._target = weight, target

    def refuses(self, game: Game) -> str | None:
        """Batch norm in D."""
        return refuses_batch_norm(game)

    def discriminator_penalty(self, step: Step) -> Tensor:
        """See the module."""
        real, fake = step.real.images.detach(), step.fake.images.detach()
        share = step.game.draws.uniform(len(real), 1, 1, 1)
        between = (share * real + (1 - share) * fake).requires_grad_()
        logits = step.game.discriminator(between, step.y).float()
        # The square root's gradient at 0 is infinite.
        norms = (image_gradients(logits, between).square().sum(1) + 1e-12).sqrt()
        return self._weight * (norms - self._target).square().mean()
