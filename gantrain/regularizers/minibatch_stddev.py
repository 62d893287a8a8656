"""Minibatch standard deviation: Karras et al., Progressive Growing of GANs, 1710.10196, section 3.

The standard deviation of every feature over a group of images, averaged over the features, is
appended to each image of the group; here to the features that D's head judges by.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from gantrain.game.parts import Hooks
from gantrain.models._base import DiscriminatorModule
from gantrain.regularizers._head import widen_head


class Regularizer(Hooks):
    """group_size images are compared with each other; a batch that it does not divide is one."""

    def __init__(self, *, group_size: Annotated[int, Field(ge=2)] = 4) -> None:
        super().__init__()
        self._group_size = group_size

    def change_discriminator(self, discriminator: DiscriminatorModule) -> None:
        """Put the layer before the head."""
        widen_head(discriminator, lambda _: MinibatchStddev(self._group_size), 1)


class MinibatchStddev(nn.Module):
    """(N, F) -> (N, F + 1)."""

    def __init__(self, group_size: int) -> None:
        super().__init__()
        self._group_size = group_size

    def forward(self, features: Tensor) -> Tensor:
        size = self._group_size if len(features) % self._group_size == 0 else len(features)
        groups = features.float().reshape(size, -1, features.shape[1])  # (group, N / group, F)
        std = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean(1)  # (N / group,)
        column = std.repeat(size)[:, None].to(features.dtype)
        return torch.cat([features, column], dim=1)
