"""DCGAN, conditional where the data has classes.

Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks, 1511.06434. Strided convolutions only; batch norm and ReLU in G, LeakyReLU
0.2 in D; weights from N(0, 0.02). The class enters G through conditional batch norm and D by
projection (Miyato, Koyama, 1802.05637): logit = psi(phi(x)) + <embed(y), phi(x)>. D takes
spectral norm (1802.05957) in place of batch norm, unless told otherwise.
"""

import itertools
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ganinfer.errors import ConfigError
from gantrain.models._base import GeneratorModule
from gantrain.models._layers import ConditionalBatchNorm2d, init_normal, spectral_norm

Count = Annotated[int, Field(ge=1)]


class Generator(GeneratorModule):
    """z (N, Z), y (N,) or None -> images (N, C, H, W) in [-1, 1]."""

    def __init__(
        self,
        resolution: int,
        channels: int,
        num_classes: int,
        *,
        z_dim: Count = 100,
        z_distribution: Literal["normal", "uniform"] = "normal",
        width: Count = 64,
        normalize_weights: Literal["none", "spectral"] = "none",
    ) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.z_distribution = z_distribution
        start, doublings = start_and_doublings(resolution)
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
        if normalize_weights == "spectral":
            for layer in (self.project, *self.ups, self.to_image):
                spectral_norm(layer)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = z[:, :, None, None]
        for layer, norm in zip((self.project, *self.ups), self.norms, strict=True):
            x = torch.relu(norm(layer(x), y))
        return torch.tanh(self.to_image(x))


class Discriminator(nn.Module):
    """images (N, C, H, W), y (N,) or None -> logits (N,)."""

    def __init__(
        self,
        resolution: int,
        channels: int,
        num_classes: int,
        *,
        width: Count = 64,
        normalize_weights: Literal["none", "spectral"] = "spectral",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        start, doublings = start_and_doublings(resolution)
        widths = [channels] + [width * 2**n for n in range(doublings)]
        self.downs = nn.ModuleList(
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1)
            for narrow, wide in itertools.pairwise(widths)
        )
        # The paper leaves batch norm out of D's first layer.
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(w) if batch_norm and n else nn.Identity()
            for n, w in enumerate(widths[1:])
        )
        num_features = widths[-1] * start * start
        self.to_logit = nn.Linear(num_features, 1)
        self.embed = nn.Embedding(num_classes, num_features) if num_classes else None
        init_normal(self, std=0.02)
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, 0.0, 0.02)
        if normalize_weights == "spectral":
            for layer in self.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
                    spectral_norm(layer)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        x = images
        for down, norm in zip(self.downs, self.norms, strict=True):
            x = nn.functional.leaky_relu(norm(down(x)), 0.2)
        features = x.flatten(1)
        logits: Tensor = self.to_logit(features).squeeze(1)
        if self.embed is not None:
            logits = logits + (self.embed(y) * features).sum(1)
        return logits


def start_and_doublings(resolution: int) -> tuple[int, int]:
    """Resolution = start * 2**doublings with start from 4 to 7: 28 -> (7, 2), 64 -> (4, 4).

    Raises:
        ConfigError: no such factors, or nothing to double.
    """
    start, doublings = resolution, 0
    while start % 2 == 0 and start > 7:
        start, doublings = start // 2, doublings + 1
    if not 4 <= start <= 7 or doublings == 0:
        raise ConfigError(
            f"dcgan: resolution {resolution} is not 4, 5, 6 or 7 doubled once or more;"
            " prepare the data with another --resolution, such as 32 or 64"
        )
    return start, doublings
