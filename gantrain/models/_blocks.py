"""Residual blocks of SNGAN, SAGAN and BigGAN, and how wide each resolution's block is.

(N, C, H, W) maps; `condition` is what the norms take: y (N,), or vectors (N, F).
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantrain.models._layers import DownConv2d, SelfAttention, UpConv2d

Norm = Callable[[int], nn.Module]

# Widths of maps by the number of doublings, as in 1809.11096, appendix B: of G's from the smallest
# maps on, of D's from the largest on.
MULTIPLIERS = {4: (16, 16, 8, 4, 2), 5: (16, 16, 8, 4, 2, 1), 6: (16, 16, 8, 8, 4, 2, 1)}
D_MULTIPLIERS = {4: (1, 2, 4, 8, 16), 5: (1, 2, 4, 8, 16, 16), 6: (1, 2, 4, 8, 8, 16, 16)}


def generator_widths(width: int, doublings: int) -> list[int]:
    """Widths of maps of start, 2 start, ...: 4 * width throughout up to 32 pixels."""
    return [width * m for m in MULTIPLIERS.get(doublings, (4,) * (doublings + 1))]


def discriminator_widths(width: int, doublings: int) -> list[tuple[int, bool]]:
    """(width, halves the map) of each of D's blocks: SNGAN's four up to 32 pixels."""
    if doublings not in D_MULTIPLIERS:
        halvings = min(doublings, 2)
        return [(4 * width, True)] * halvings + [(4 * width, False)] * (4 - halvings)
    multipliers = D_MULTIPLIERS[doublings]
    halving = [(width * m, True) for m in multipliers[:-1]]
    return [*halving, (width * multipliers[-1], False)]


class UpBlock(nn.Module):
    """norm, ReLU, upsample and 3x3, norm, ReLU, 3x3; skip: 1x1, then upsample."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(out_channels)
        self.conv1 = UpConv2d(in_channels, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = self.conv1(torch.relu(self.norm1(x, condition)))
        h = self.conv2(torch.relu(self.norm2(h, condition)))
        # A 1x1 convolution and the upsampling commute, and come cheaper in this order.
        skip: Tensor = functional.interpolate(self.skip(x), scale_factor=2, mode="nearest")
        out: Tensor = h + skip
        return out


class DownBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, average pooling if it halves; skip: pooling, 1x1 where it is needed.

    The first block of D has no ReLU before its first convolution. norm: of the maps, or none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        halves: bool,
        first: bool = False,
        norm: Norm = lambda _: nn.Identity(),
    ) -> None:
        super().__init__()
        self._halves, self._first = halves, first
        self.norm1 = nn.Identity() if first else norm(in_channels)
        self.norm2 = norm(out_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        last = DownConv2d if halves else _same_size
        self.conv2 = last(out_channels, out_channels)
        needed = in_channels != out_channels or halves
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if needed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = x if self._first else torch.relu(self.norm1(x))
        h = self.conv2(torch.relu(self.norm2(self.conv1(h))))
        skip: Tensor = self.skip(functional.avg_pool2d(x, 2) if self._halves else x)
        out: Tensor = h + skip
        return out


def _same_size(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def up_blocks(start: int, widths: list[int], norm: Norm, attention: Iterable[int]) -> nn.ModuleList:
    """UpBlocks from `start` pixels on, of the shorter side; attention after those at its places."""
    blocks: list[nn.Module] = []
    for n in range(1, len(widths)):
        blocks.append(UpBlock(widths[n - 1], widths[n], norm))
        if start * 2**n in attention:
            blocks.append(SelfAttention(widths[n]))
    return nn.ModuleList(blocks)


def down_blocks(
    side: int,
    channels: int,
    widths: list[tuple[int, bool]],
    attention: Iterable[int],
    norm: Norm = lambda _: nn.Identity(),
) -> nn.ModuleList:
    """DownBlocks from a shorter side on; attention after the first that reaches each place."""
    blocks: list[nn.Module] = []
    size, before, waiting = side, channels, set(attention)
    for n, (width, halves) in enumerate(widths):
        blocks.append(DownBlock(before, width, halves=halves, first=n == 0, norm=norm))
        size, before = size // 2 if halves else size, width
        if size in waiting:
            blocks.append(SelfAttention(width))
            waiting.remove(size)
    return nn.ModuleList(blocks)


def run_up(blocks: nn.ModuleList, x: Tensor, condition: Tensor | None) -> Tensor:
    """Through blocks that take the condition and attention that does not."""
    for block in blocks:
        x = block(x) if isinstance(block, SelfAttention) else block(x, condition)
    return x


def map_sizes(side: int, widths: list[tuple[int, bool]]) -> list[int]:
    """Shorter sides of the maps that D's blocks put out, each once."""
    sizes: list[int] = []
    size = side
    for _, halves in widths:
        size = size // 2 if halves else size
        if size not in sizes:
            sizes.append(size)
    return sizes
