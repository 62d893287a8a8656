"""Minibatch discrimination: Salimans et al., 1606.03498, section 3.2.

With T (F, B, C): M_i = f_i T; o_ib = sum over j != i of exp(-||M_ib - M_jb||_1), appended to f_i.
D sees how near an image is to the others of its batch, so a collapsed batch betrays itself.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from gantrain.game.parts import Hooks, in_float32
from gantrain.models._base import DiscriminatorModule
from gantrain.regularizers._head import widen_head

Count = Annotated[int, Field(ge=1)]


class Regularizer(Hooks):
    """Each process, and each microbatch, compares the images that it has."""

    def __init__(self, *, num_kernels: Count = 50, kernel_dim: Count = 5) -> None:
        super().__init__()
        self._num_kernels, self._kernel_dim = num_kernels, kernel_dim

    def change_discriminator(self, discriminator: DiscriminatorModule) -> None:
        """Put the layer before the head."""

        def make(num_features: int) -> nn.Module:
            return MinibatchDiscrimination(num_features, self._num_kernels, self._kernel_dim)

        widen_head(discriminator, make, self._num_kernels)


class MinibatchDiscrimination(nn.Module):
    """(N, F) -> (N, F + B)."""

    def __init__(self, num_features: int, num_kernels: int, kernel_dim: int) -> None:
        super().__init__()
        std = 1 / num_features**0.5
        self.tensor = nn.Parameter(std * torch.randn(num_features, num_kernels, kernel_dim))

    def forward(self, features: Tensor) -> Tensor:
        with in_float32(features.device):
            m = torch.einsum("nf,fbc->nbc", features.float(), self.tensor)
        distances = (m[:, None] - m[None]).abs().sum(-1)  # (N, N, B)
        closeness = torch.exp(-distances).sum(1) - 1  # without itself
        return torch.cat([features, closeness.to(features.dtype)], dim=1)
