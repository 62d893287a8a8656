"""Minibatch standard deviation: Karras et al., Progressive Growing of GANs, 1710.10196, section 3.

The standard deviation of every feature over a group of images, averaged over the features, is
appended to each image of the group; here to the features that D's head judges by. stylegan2 has
the layer in D itself, before the last convolution.
"""

from typing import Annotated

from pydantic import Field

from gantrain.game.parts import Hooks
from gantrain.models._base import DiscriminatorModule
from gantrain.models._layers import MinibatchStddev
from gantrain.regularizers._head import widen_head


class Regularizer(Hooks):
    """group_size images are compared with each other; a batch that it does not divide is one."""

    def __init__(self, *, group_size: Annotated[int, Field(ge=2)] = 4) -> None:
        super().__init__()
        self._group_size = group_size

    def change_discriminator(self, discriminator: DiscriminatorModule) -> None:
        """Put the layer before the head."""
        widen_head(discriminator, lambda _: MinibatchStddev(self._group_size), 1)
