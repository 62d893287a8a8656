"""BigGAN-deep: Brock, Donahue, Simonyan, 1809.11096, appendix B, figure 16.

Bottleneck blocks: 1x1 to a quarter of the width, 3x3 twice, 1x1 back. G's skip drops channels; D's
concatenates new ones to the old. The whole of z, beside the shared class embedding, conditions
every batch norm. Two blocks for each resolution.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantrain.data.resolution import Resolution, size_of
from gantrain.models._base import DiscriminatorModule, GeneratorModule
from gantrain.models._blocks import Norm, generator_widths, run_up
from gantrain.models._layers import (
    BatchNorm2d,
    Count,
    Head,
    ModulatedBatchNorm2d,
    SelfAttention,
    UpConv2d,
    check_attention,
    start_and_doublings,
)
from gantrain.models.biggan import Start, default_places, start_weights


class Generator(GeneratorModule):
    """z (N, Z), y (N,) or None -> images (N, C, H, W) in [-1, 1]."""

    only_square = False

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        z_dim: Count = 128,
        width: Count = 128,
        embedding_dim: Count = 128,
        attention: list[Count] | None = None,
        init: Start = "orthogonal",
    ) -> None:
        super().__init__()
        self.z_dim, self.num_classes, self.z_distribution = z_dim, num_classes, "normal"
        self._start, doublings = start_and_doublings(self, resolution)
        widths = generator_widths(width, doublings)
        sizes = [min(self._start) * 2**n for n in range(1, doublings + 1)]
        places = default_places(resolution) if attention is None else attention
        check_attention(places, sizes)
        self.embed = nn.Embedding(num_classes, embedding_dim) if num_classes else None
        condition_dim = z_dim + (embedding_dim if num_classes else 0)
        norm: Norm = lambda n: ModulatedBatchNorm2d(n, condition_dim)  # noqa: E731
        self.project = nn.Linear(condition_dim, widths[0] * math.prod(self._start))
        blocks: list[nn.Module] = []
        for n, size in enumerate(sizes):
            blocks.append(UpBottleneck(widths[n], widths[n], norm, doubles=False))
            blocks.append(UpBottleneck(widths[n], widths[n + 1], norm, doubles=True))
            if size in places:
                blocks.append(SelfAttention(widths[n + 1]))
        self.blocks = nn.ModuleList(blocks)
        self.norm = BatchNorm2d(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        start_weights(self, init)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        condition = z if self.embed is None else torch.cat([z, self.embed(y)], dim=1)
        x = self.project(condition).reshape(z.shape[0], -1, *self._start)
        x = run_up(self.blocks, x, condition)
        return torch.tanh(self.to_image(torch.relu(self.norm(x))))


class Discriminator(DiscriminatorModule):
    """Images (N, C, H, W), y (N,) or None -> logits (N,)."""

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        width: Count = 128,
        attention: list[Count] | None = None,
        init: Start = "orthogonal",
    ) -> None:
        super().__init__()
        _, doublings = start_and_doublings(self, resolution)
        widths = generator_widths(width, doublings)[::-1]
        sizes = [min(size_of(resolution)) // 2**n for n in range(1, doublings + 1)]
        places = default_places(resolution) if attention is None else attention
        check_attention(places, sizes)
        self.from_image = nn.Conv2d(channels, widths[0], 3, padding=1)
        blocks: list[nn.Module] = []
        for n, size in enumerate(sizes):
            blocks.append(DownBottleneck(widths[n], widths[n + 1], halves=True))
            blocks.append(DownBottleneck(widths[n + 1], widths[n + 1], halves=False))
            if size in places:
                blocks.append(SelfAttention(widths[n + 1]))
        self.blocks = nn.ModuleList(blocks)
        self.head = Head(widths[-1], num_classes)
        start_weights(self, init)

    def features(self, images: Tensor) -> Tensor:
        """The last maps, summed over their places."""
        x = self.from_image(images)
        for block in self.blocks:
            x = block(x)
        return torch.relu(x).sum((2, 3))


class UpBottleneck(nn.Module):
    """G's block; the skip keeps the first out_channels channels."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, *, doubles: bool) -> None:
        super().__init__()
        middle = max(in_channels // 4, 1)
        self._out_channels, self._doubles = out_channels, doubles
        self.norms = nn.ModuleList(norm(n) for n in (in_channels, middle, middle, middle))
        widen = UpConv2d if doubles else _conv3
        self.convs = nn.ModuleList(
            (
                nn.Conv2d(in_channels, middle, 1),
                widen(middle, middle),
                _conv3(middle, middle),
                nn.Conv2d(middle, out_channels, 1),
            )
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(torch.relu(norm(h, condition)))
        skip = x[:, : self._out_channels]
        return h + (functional.interpolate(skip, scale_factor=2.0) if self._doubles else skip)


class DownBottleneck(nn.Module):
    """D's block; the skip appends out_channels - in_channels channels by a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, *, halves: bool) -> None:
        super().__init__()
        middle = max(out_channels // 4, 1)
        self._halves = halves
        self.reduce = nn.Conv2d(in_channels, middle, 1)
        self.conv1 = _conv3(middle, middle)
        self.conv2 = _conv3(middle, middle)
        self.expand = nn.Conv2d(middle, out_channels, 1)
        more = out_channels - in_channels
        self.more = nn.Conv2d(in_channels, more, 1) if more else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.reduce(torch.relu(x))
        h = self.conv1(torch.relu(h))
        h = torch.relu(self.conv2(torch.relu(h)))
        if self._halves:
            h, x = functional.avg_pool2d(h, 2), functional.avg_pool2d(x, 2)
        if self.more is not None:
            x = torch.cat([x, self.more(x)], dim=1)
        expanded: Tensor = self.expand(h)
        return expanded + x


def _conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)
