"""Mixing regularisation: Karras, Laine, Aila, StyleGAN, 1812.04948, section 3.1.

Of a share of the images the styles of the first places are those of one latent, those of the others
another's, so that G does not take it that neighbouring styles belong together.
"""

from typing import Annotated

from pydantic import Field

from gantrain.game.parts import Game, Hooks
from gantrain.models._base import GeneratorModule, StyledGenerator


class Regularizer(Hooks):
    """probability: of an image that is mixed, in training."""

    def __init__(self, *, probability: Annotated[float, Field(gt=0, le=1)] = 0.9) -> None:
        super().__init__()
        self._probability = probability

    def change_generator(self, generator: GeneratorModule) -> None:
        """Let it mix."""
        if isinstance(generator, StyledGenerator):
            generator.mixing = self._probability

    def refuses(self, game: Game) -> str | None:
        """A generator without styles."""
        if isinstance(game.generator, StyledGenerator):
            return None
        return "G makes no styles that could be mixed; use it with stylegan2"
