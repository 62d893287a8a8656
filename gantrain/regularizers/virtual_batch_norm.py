"""Virtual batch normalization: Salimans et al., 1606.03498, section 3.5.

Each example is normalised by the statistics of a fixed reference batch and of itself, so that it
does not depend on the others of its batch; in G alone, as in the paper. In eval mode the reference
batch's statistics are those of its last pass in train mode.
"""

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ganinfer.drawing.latents import draw_latents
from gantrain.game.parts import Game, Hooks
from gantrain.models._base import GeneratorModule


class Regularizer(Hooks):
    """Every batch norm of G becomes virtual; the reference batch is latents of fixed seeds."""

    def __init__(self, *, reference_size: Annotated[int, Field(ge=2)] = 64) -> None:
        super().__init__()
        self._size = reference_size

    def change_generator(self, generator: GeneratorModule) -> None:
        """Replace its batch norms, and let the reference batch pass through it in train mode."""
        for parent in list(generator.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.BatchNorm2d):
                    setattr(parent, name, VirtualBatchNorm2d(layer, self._size))
        z = draw_latents(range(self._size), generator.z_dim, distribution=generator.z_distribution)
        generator.register_buffer("reference_z", torch.from_numpy(z), persistent=False)
        y = torch.from_numpy(np.arange(self._size, dtype=np.int64))
        generator.register_buffer("reference_y", y, persistent=False)
        generator.register_forward_pre_hook(_prepend_reference)
        generator.register_forward_hook(_drop_reference)

    def refuses(self, game: Game) -> str | None:
        """A generator without batch norm of maps."""
        layers = game.generator.modules()
        if not any(isinstance(layer, VirtualBatchNorm2d) for layer in layers):
            return "G has no batch norm of maps to replace; leave it out"
        return None


class VirtualBatchNorm2d(nn.Module):
    """(N, C, H, W) -> the same. In train mode the first rows are the reference batch."""

    mean: Tensor
    square: Tensor

    def __init__(self, norm: nn.BatchNorm2d, reference_size: int) -> None:
        super().__init__()
        self._size, self._eps = reference_size, norm.eps
        self.weight, self.bias = norm.weight, norm.bias  # None without affine
        self.register_buffer("mean", torch.zeros(norm.num_features))
        self.register_buffer("square", torch.ones(norm.num_features))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        mean, square = wide.mean((2, 3)), wide.square().mean((2, 3))  # (N, C)
        share = torch.full_like(mean[:, :1], 1 / (self._size + 1))  # of the example itself
        if self.training:
            reference_mean = mean[: self._size].mean(0)
            reference_square = square[: self._size].mean(0)
            with torch.no_grad():
                self.mean.copy_(reference_mean)
                self.square.copy_(reference_square)
            share[: self._size] = 0
        else:
            reference_mean, reference_square = self.mean, self.square
        mean = share * mean + (1 - share) * reference_mean
        square = share * square + (1 - share) * reference_square
        scale = torch.rsqrt((square - mean.square()).clamp_min(0) + self._eps)
        normal = (wide - mean[:, :, None, None]) * scale[:, :, None, None]
        if self.weight is not None:
            normal = normal * self.weight[:, None, None] + self.bias[:, None, None]
        return normal.to(x.dtype)


def _prepend_reference(generator: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if not generator.training:
        return None
    z, *labels = arguments
    z = torch.cat([generator.reference_z, z])
    if not labels or labels[0] is None:
        return (z, None)
    return (z, torch.cat([generator.reference_y % generator.num_classes, labels[0]]))


def _drop_reference(generator: Any, arguments: tuple[Any, ...], images: Tensor) -> Tensor:  # noqa: ARG001
    return images[len(generator.reference_z) :] if generator.training else images
