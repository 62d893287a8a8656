"""Latent consistency regularisation, zCR: Zhao et al., 2002.04724, section 3.2.

With z' = z + sigma e, e ~ N(0, I), D judges G(z) and G(z') alike, and G draws them differently:
D's loss + discriminator_weight * E (D(G(z)) - D(G(z')))^2,
G's loss - generator_weight * E (G(z) - G(z'))^2, a mean over pixels.
The defaults are known from implementations by others, not from the paper: 5, 0.5 and 0.03 of small
networks; those of BigGAN on CIFAR-10 take 20, 0.5 and 0.05.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from gantrain.game.parts import Hooks, Step

Weight = Annotated[float, Field(ge=0)]


class Regularizer(Hooks):
    """G is kept from drawing the same picture for neighbouring latents."""

    def __init__(
        self,
        *,
        discriminator_weight: Weight = 5.0,
        generator_weight: Weight = 0.5,
        sigma: Annotated[float, Field(gt=0)] = 0.03,
    ) -> None:
        super().__init__()
        self._discriminator_weight, self._generator_weight = discriminator_weight, generator_weight
        self._sigma = sigma

    def discriminator_penalty(self, step: Step) -> Tensor:
        """For D; images as it is shown them."""
        game = step.game
        with torch.no_grad():
            near = game.generator(self._near(step), step.y).float()
        logits = game.discriminator(game.augment(near), step.y).float()
        distance: Tensor = (step.fake.logits - logits).square().mean()
        return self._discriminator_weight * distance

    def generator_penalty(self, step: Step) -> Tensor:
        """For G; images as it draws them."""
        assert step.z is not None
        z = torch.cat([step.z, self._near(step)])
        y = None if step.y is None else torch.cat([step.y, step.y])
        here, near = step.game.generator(z, y).float().chunk(2)
        distance: Tensor = (here - near).square().mean()
        return -self._generator_weight * distance

    def _near(self, step: Step) -> Tensor:
        assert step.z is not None
        return step.z + self._sigma * step.game.draws.normal(*step.z.shape)
