"""R2: R1 on generated images. Mescheder, Geiger, Nowozin, 1801.04406, equation 10.

gamma / 2 * E ||grad s(G(z))||^2; with r1, the pair that R3GAN (2501.05441) needs to converge.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from gantrain.game import Game
from gantrain.hooks import Hooks, Step
from gantrain.regularizers._gradients import image_gradients, refuses_batch_norm


class Regularizer(Hooks):
    """Pulls D to a constant where the generated images are."""

    differentiates_images = True

    def __init__(self, *, gamma: Annotated[float, Field(gt=0)] = 10.0) -> None:
        super().__init__()
        self._gamma = gamma

    def refuses(self, game: Game) -> str | None:
        """Batch norm in D."""
        return refuses_batch_norm(game)

    def discriminator_penalty(self, step: Step) -> Tensor:
        """See the module."""
        squares = image_gradients(step.fake.logits, step.fake.images).square().sum(1)
        return self._gamma / 2 * squares.mean()
