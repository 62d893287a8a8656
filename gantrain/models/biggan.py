"""BigGAN: Brock, Donahue, Simonyan, Large Scale GAN Training, 1809.11096, appendix B, figure 15.

z is split into equal chunks, one for the first layer and one for each block (hierarchical latents);
a chunk beside the shared class embedding gives gain and bias of the block's batch norms, over all
processes. Self-attention at maps of half the image's size, 64 at most; D sums its last maps and
projects. Orthogonal start. Spectral norm in both networks, the orthogonal regularisation and the
truncated latents of training are the recipe's: [[regularizers]] and [train] truncation.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ganinfer.errors import ConfigError
from gantrain.data.resolution import Resolution, size_of
from gantrain.models._base import DiscriminatorModule, GeneratorModule
from gantrain.models._blocks import (
    Norm,
    discriminator_widths,
    down_blocks,
    generator_widths,
    map_sizes,
    up_blocks,
)
from gantrain.models._layers import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    Count,
    Head,
    ModulatedBatchNorm2d,
    SelfAttention,
    check_attention,
    init_normal,
    init_orthogonal,
    start_and_doublings,
)

Start = Literal["orthogonal", "normal"]


class Generator(GeneratorModule):
    """z (N, Z), y (N,) or None -> images (N, C, H, W) in [-1, 1].

    z_dim: 20 for each chunk, or 128 in one, unless it is given.
    hierarchical: split z over the blocks; otherwise all of it goes into the first layer.
    init: of the weights; "normal" is N(0, 0.02), as in the CIFAR recipe of the paper's code.
    """

    only_square = False

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        z_dim: Count | None = None,
        width: Count = 96,
        embedding_dim: Count = 128,
        hierarchical: bool = True,
        attention: list[Count] | None = None,
        init: Start = "orthogonal",
    ) -> None:
        super().__init__()
        self.num_classes, self.z_distribution = num_classes, "normal"
        self._start, doublings = start_and_doublings(self, resolution)
        widths = generator_widths(width, doublings)
        side = min(self._start)
        sizes = [side * 2**n for n in range(1, doublings + 1)]
        places = default_places(resolution) if attention is None else attention
        check_attention(places, sizes)
        num_chunks = doublings + 1 if hierarchical else 1
        self.z_dim = z_dim or (20 * num_chunks if hierarchical else 128)
        if self.z_dim % num_chunks:
            raise ConfigError(
                f"biggan z_dim: found {z_dim}; expected a multiple of {num_chunks}, one chunk for"
                f" the first layer and each of {doublings} blocks, such as {20 * num_chunks}"
            )
        self._chunk = self.z_dim // num_chunks
        self.embed = nn.Embedding(num_classes, embedding_dim) if num_classes else None
        condition_dim = (self._chunk if hierarchical else 0) + (embedding_dim if num_classes else 0)
        norm: Norm = lambda n: (  # noqa: E731
            ModulatedBatchNorm2d(n, condition_dim)
            if condition_dim
            else ConditionalBatchNorm2d(n, 0)
        )
        self.project = nn.Linear(self._chunk, widths[0] * math.prod(self._start))
        self.blocks = up_blocks(side, widths, norm, places)
        self.norm = BatchNorm2d(widths[-1])
        self.to_image = nn.Conv2d(widths[-1], channels, 3, padding=1)
        start_weights(self, init)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, *chunks = torch.split(z, self._chunk, dim=1)
        shared = None if self.embed is None else self.embed(y)
        x = self.project(first).reshape(z.shape[0], -1, *self._start)
        block_number = 0
        for block in self.blocks:
            if isinstance(block, SelfAttention):
                x = block(x)
                continue
            chunk = chunks[block_number] if chunks else None
            x = block(x, joined(chunk, shared))
            block_number += 1
        return torch.tanh(self.to_image(torch.relu(self.norm(x))))


class Discriminator(DiscriminatorModule):
    """Images (N, C, H, W), y (N,) or None -> logits (N,)."""

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        width: Count = 96,
        attention: list[Count] | None = None,
        init: Start = "orthogonal",
    ) -> None:
        super().__init__()
        _, doublings = start_and_doublings(self, resolution)
        widths = discriminator_widths(width, doublings)
        side = min(size_of(resolution))
        sizes = map_sizes(side, widths)
        places = default_places(resolution) if attention is None else attention
        check_attention(places, sizes)
        self.blocks = down_blocks(side, channels, widths, places)
        self.head = Head(widths[-1][0], num_classes)
        start_weights(self, init)

    def features(self, images: Tensor) -> Tensor:
        """The last maps, summed over their places."""
        x = images
        for block in self.blocks:
            x = block(x)
        return torch.relu(x).sum((2, 3))


def start_weights(network: nn.Module, init: Start) -> None:
    """Draw all weights."""
    if init == "orthogonal":
        init_orthogonal(network)
    else:
        init_normal(network, std=0.02)


def default_places(resolution: Resolution) -> list[int]:
    """Maps of half the image's size, 64 at most; the tiniest images get none."""
    side = min(size_of(resolution))
    return [min(side // 2, 64)] if side >= 16 else []


def joined(*parts: Tensor | None) -> Tensor | None:
    """The vectors that are there, side by side."""
    there = [part for part in parts if part is not None]
    return torch.cat(there, dim=1) if there else None
