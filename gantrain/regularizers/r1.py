"""R1: Mescheder, Geiger, Nowozin, Which Training Methods for GANs do actually Converge?

1801.04406, equation 9: gamma / 2 * E ||grad s(x)||^2 over real images.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from gantrain.game.parts import Game, Hooks, Step, View
from gantrain.regularizers._gradients import image_gradients, refuses_batch_norm


class Regularizer(Hooks):
    """Pulls D to a constant where the data is, so that the game comes to rest there.

    Under an augmentation the slope is that at the images which D sees.
    """

    differentiates_images = True
    differentiates_twice = True

    def __init__(self, *, gamma: Annotated[float, Field(gt=0)] = 10.0) -> None:
        super().__init__()
        self._gamma = gamma

    def refuses(self, game: Game) -> str | None:
        """Batch norm in D."""
        return refuses_batch_norm(game)

    def discriminator_penalty(self, step: Step) -> Tensor:
        """See the module."""
        view = self.view(step)
        squares = image_gradients(view.logits, view.images).square().sum(1)
        return self._gamma / 2 * squares.mean()

    def view(self, step: Step) -> View:
        """The images at which D's slope is punished: the real ones."""
        return step.real
