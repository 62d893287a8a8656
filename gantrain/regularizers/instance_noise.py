"""Instance noise: Sonderby et al., 1610.04490; Arjovsky, Bottou, 1701.04862: D sees x + sigma eps.

Both distributions get full support, so that they overlap and G's gradient does not vanish. sigma
falls linearly to 0.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from gantrain.game.parts import Game, Hooks


class Regularizer(Hooks):
    """sigma in units of images on [-1, 1]; decay_kimg = 0 keeps it."""

    def __init__(
        self,
        *,
        sigma: Annotated[float, Field(gt=0)] = 0.1,
        decay_kimg: Annotated[float, Field(ge=0)] = 0.0,
    ) -> None:
        super().__init__()
        self._sigma, self._decay_images = sigma, 1000 * decay_kimg

    def augment(self, images: Tensor, game: Game) -> Tensor:
        """Images plus noise."""
        left = 1 - game.images_seen / self._decay_images if self._decay_images else 1.0
        if left <= 0:
            return images
        return images + self._sigma * left * game.draws.normal(len(images), *images.shape[1:])
