"""Self-Attention Generative Adversarial Networks: Zhang et al., 1805.08318.

SNGAN's residual networks with one self-attention block in each (at maps of half the image's size
for 32 pixels, of a quarter for more), conditional batch norm in G and projection in D. The paper
puts spectral norm into both: [[regularizers]] spectral_norm with both networks.
"""

import torch
from torch import Tensor, nn

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
    attention_at,
    init_weights,
    start_and_doublings,
)


class Generator(GeneratorModule):
    """z (N, Z), y (N,) or None -> images (N, C, H, W) in [-1, 1].

    attention: sizes of the maps that get it.
    """

    def __init__(
        self,
        resolution: int,
        channels: int,
        num_classes: int,
        *,
        z_dim: Count = 128,
        width: Count = 64,
        attention: list[Count] | None = None,
    ) -> None:
        super().__init__()
        self.z_dim, self.num_classes, self.z_distribution = z_dim, num_classes, "normal"
        self._start, doublings = start_and_doublings(resolution, model="sagan")
        widths = generator_widths(width, doublings)
        sizes = [self._start * 2**n for n in range(1, doublings + 1)]
        places = attention_at(attention, default_place(resolution), sizes, model="sagan")
        self.project = nn.Linear(z_dim, widths[0] * self._start**2)
        norm: Norm = lambda n: ConditionalBatchNorm2d(n, num_classes)  # noqa: E731
        self.blocks = up_blocks(self._start, widths, norm, places)
        self.norm = BatchNorm2d(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        init_weights(self, nn.init.xavier_uniform_)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.project(z).reshape(z.shape[0], -1, self._start, self._start)
        x = run_up(self.blocks, x, y)
        return torch.tanh(self.to_image(torch.relu(self.norm(x))))


class Discriminator(DiscriminatorModule):
    """Images (N, C, H, W), y (N,) or None -> logits (N,)."""

    def __init__(
        self,
        resolution: int,
        channels: int,
        num_classes: int,
        *,
        width: Count = 32,
        attention: list[Count] | None = None,
    ) -> None:
        super().__init__()
        _, doublings = start_and_doublings(resolution, model="sagan")
        widths = discriminator_widths(width, doublings)
        sizes = map_sizes(resolution, widths)
        places = attention_at(attention, default_place(resolution), sizes, model="sagan")
        self.blocks = down_blocks(resolution, channels, widths, places)
        self.head = Head(widths[-1][0], num_classes)
        init_weights(self, nn.init.xavier_uniform_)

    def features(self, images: Tensor) -> Tensor:
        """The last maps, summed over their places."""
        x = images
        for block in self.blocks:
            x = block(x)
        return torch.relu(x).sum((2, 3))


def default_place(resolution: int) -> int:
    """The size of the maps that get attention: 16 for 32 pixels, 32 for 128."""
    return resolution // 2 if resolution < 64 else resolution // 4
