"""R1: Mescheder, Geiger, Nowozin, Which Training Methods for GANs do actually Converge?

1801.04406, equation 9: gamma / 2 * E ||grad s(x)||^2 over real images. Counted lazily, as StyleGAN2
does (1912.04958, section 3.1), it is worth as much.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from gantrain.game.parts import Game, Hooks, Step, View
from gantrain.models._layers import Count
from gantrain.regularizers._gradients import image_gradients, refuses_batch_norm


class Regularizer(Hooks):
    """Pulls D to a constant where the data is, so that the game comes to rest there.

    Under an augmentation the slope is that at the images which D sees. With an interval it is
    counted in every interval-th round alone, interval times.
    """

    differentiates_images = True
    differentiates_twice = True

    def __init__(self, *, gamma: Annotated[float, Field(gt=0)] = 10.0, interval: Count = 1) -> None:
        super().__init__()
        self._gamma, self._interval = gamma, interval

    def refuses(self, game: Game) -> str | None:
        """Batch norm in D."""
        return refuses_batch_norm(game)

    def discriminator_penalty(self, step: Step) -> Tensor | float:
        """See the module."""
        if step.game.rounds % self._interval:
            return 0.0
        view = self.view(step)
        squares = image_gradients(view.logits, view.images).square().sum(1)
        return self._interval * self._gamma / 2 * squares.mean()

    def view(self, step: Step) -> View:
        """The images at which D's slope is punished: the real ones."""
        return step.real
