"""DCGAN, conditional where the data has classes.

Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks, 1511.06434. Strided convolutions only; batch norm and ReLU in G, LeakyReLU
0.2 in D; weights from N(0, 0.02). The class enters G through conditional batch norm and D by
projection (Miyato, Koyama, 1802.05637).
"""

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantrain.data.resolution import Resolution
from gantrain.models._base import DiscriminatorModule, GeneratorModule
from gantrain.models._layers import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    Count,
    Head,
    Share,
    init_normal,
    start_and_doublings,
)


class Generator(GeneratorModule):
    """z (N, Z), y (N,) or None -> images (N, C, H, W) in [-1, 1]."""

    only_square = False

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        z_dim: Count = 100,
        z_distribution: Literal["normal", "uniform"] = "normal",
        width: Count = 64,
    ) -> None:
        super().__init__()
        self.z_dim, self.num_classes = z_dim, num_classes
        self.z_distribution = z_distribution
        start, doublings = start_and_doublings(self, resolution)
        widths = [width * 2**n for n in reversed(range(doublings))]
        # A transposed convolution of a 1x1 map is the paper's "project and reshape".
        self.project = nn.ConvTranspose2d(z_dim, widths[0], start, bias=False)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)
            for wide, narrow in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(ConditionalBatchNorm2d(w, num_classes) for w in widths)
        self.to_image = nn.ConvTranspose2d(widths[-1], channels, 4, stride=2, padding=1)
        init_normal(self, std=0.02)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = z[:, :, None, None]
        for layer, norm in zip((self.project, *self.ups), self.norms, strict=True):
            x = torch.relu(norm(layer(x), y))
        return torch.tanh(self.to_image(x))


class Discriminator(DiscriminatorModule):
    """Images (N, C, H, W), y (N,) or None -> logits (N,)."""

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        width: Count = 64,
        batch_norm: bool = False,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        start, doublings = start_and_doublings(self, resolution)
        widths = [channels] + [width * 2**n for n in range(doublings)]
        self.downs = nn.ModuleList(
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1)
            for narrow, wide in itertools.pairwise(widths)
        )
        # The paper leaves batch norm out of D's first layer.
        self.norms = nn.ModuleList(
            BatchNorm2d(w) if batch_norm and n else nn.Identity() for n, w in enumerate(widths[1:])
        )
        self.dropout = nn.Dropout(dropout)
        self.head = Head(widths[-1] * math.prod(start), num_classes)
        init_normal(self, std=0.02)

    def features(self, images: Tensor) -> Tensor:
        """The last maps, flattened."""
        x = images
        for down, norm in zip(self.downs, self.norms, strict=True):
            x = self.dropout(functional.leaky_relu(norm(down(x)), 0.2))
        return x.flatten(1)
