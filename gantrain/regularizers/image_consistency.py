"""Balanced consistency regularisation, bCR: Zhao et al., 2002.04724, section 3.1.

D judges an image and its augmentation alike:
weight_real * E (D(x) - D(T(x)))^2 + weight_fake * E (D(G(z)) - D(T(G(z))))^2.
With fake_weight = 0 it is CR-GAN: Zhang et al., 1910.12027. T flips, and shifts by a few pixels.
10 is the weight of CR-GAN; that both weights are 10 here is known from implementations by others.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from gantrain.game.draws import Draws
from gantrain.game.parts import Game, Hooks, Step, View
from gantrain.regularizers.diffaugment import translate

Weight = Annotated[float, Field(ge=0)]


class Regularizer(Hooks):
    """Of D alone; G is shown no augmented image."""

    def __init__(
        self, *, real_weight: Weight = 10.0, fake_weight: Weight = 10.0, flip: bool = True
    ) -> None:
        """flip: of images whose mirror image is none of the data, such as digits, leave it out."""
        super().__init__()
        self._real_weight, self._fake_weight, self._flip = real_weight, fake_weight, flip

    def refuses(self, game: Game) -> str | None:
        """Points are no images."""
        return "points cannot be augmented as images; leave it out" if game.points else None

    def discriminator_penalty(self, step: Step) -> Tensor:
        """See the module."""
        pairs = ((self._real_weight, step.real), (self._fake_weight, step.fake))
        return torch.stack([w * self._distance(step, view) for w, view in pairs if w]).sum()

    def _distance(self, step: Step, view: View) -> Tensor:
        draws = step.game.draws
        images = translate(view.images, draws)
        if self._flip:
            images = flip(images, draws)
        logits = step.game.discriminator(images, step.y).float()
        distance: Tensor = (view.logits - logits).square().mean()
        return distance


def flip(images: Tensor, draws: Draws) -> Tensor:
    """Each image mirrored, or not, by a coin of its own."""
    heads = draws.uniform(len(images))[:, None, None, None] < 0.5
    return torch.where(heads, images.flip(3), images)
