"""The residual networks of WGAN-GP (1704.00028, appendix F) and SNGAN (1802.05957, appendix B.4).

G: dense to 4x4, up blocks with (conditional) batch norm, 3x3 to tanh. D: down blocks, ReLU, sum or
mean over the map, linear with projection. Weights by Xavier, uniform.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from gantrain.data.resolution import Resolution, size_of
from gantrain.models._base import DiscriminatorModule, GeneratorModule
from gantrain.models._blocks import (
    Norm,
    discriminator_widths,
    down_blocks,
    generator_widths,
    map_sizes,
    run_up,
    up_blocks,
)
from gantrain.models._layers import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    Count,
    Head,
    check_attention,
    init_weights,
    start_and_doublings,
)


class Generator(GeneratorModule):
    """z (N, Z), y (N,) or None -> images (N, C, H, W) in [-1, 1].

    attention: sizes of the maps, of their shorter sides, that get self-attention (1805.08318); none
    in these papers.
    """

    only_square = False

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        z_dim: Count = 128,
        width: Count = 64,
        attention: list[Count] = [],  # noqa: B006
    ) -> None:
        super().__init__()
        self.z_dim, self.num_classes, self.z_distribution = z_dim, num_classes, "normal"
        self._start, doublings = start_and_doublings(self, resolution)
        widths = generator_widths(width, doublings)
        side = min(self._start)
        check_attention(attention, [side * 2**n for n in range(1, doublings + 1)])
        self.project = nn.Linear(z_dim, widths[0] * math.prod(self._start))
        norm: Norm = lambda n: ConditionalBatchNorm2d(n, num_classes)  # noqa: E731
        self.blocks = up_blocks(side, widths, norm, attention)
        self.norm = BatchNorm2d(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        init_weights(self, nn.init.xavier_uniform_)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.project(z).reshape(z.shape[0], -1, *self._start)
        x = run_up(self.blocks, x, y)
        return torch.tanh(self.to_image(torch.relu(self.norm(x))))


class Discriminator(DiscriminatorModule):
    """Images (N, C, H, W), y (N,) or None -> logits (N,)."""

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        width: Count = 32,
        attention: list[Count] = [],  # noqa: B006
        norm: Literal["none", "layer", "batch"] = "none",
        pooling: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__()
        self._pooling = pooling
        _, doublings = start_and_doublings(self, resolution)
        widths = discriminator_widths(width, doublings)
        side = min(size_of(resolution))
        check_attention(attention, map_sizes(side, widths))
        norms: dict[str, Norm] = {
            "none": lambda _: nn.Identity(),
            "layer": lambda n: nn.GroupNorm(1, n),
            "batch": BatchNorm2d,
        }
        self.blocks = down_blocks(side, channels, widths, attention, norms[norm])
        self.head = Head(widths[-1][0], num_classes)
        init_weights(self, nn.init.xavier_uniform_)

    def features(self, images: Tensor) -> Tensor:
        """The last maps, pooled."""
        x = images
        for block in self.blocks:
            x = block(x)
        x = torch.relu(x)
        return x.sum((2, 3)) if self._pooling == "sum" else x.mean((2, 3))
