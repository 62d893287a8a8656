"""Fully connected networks: the first GAN, and the one for points in the plane.

Goodfellow et al., Generative Adversarial Nets, 1406.2661: G of rectifiers, D of maxout with dropout
(1302.4389). On images G ends in tanh, which is the paper's sigmoid on [-1, 1]. With classes, G gets
an embedding of y beside z (Mirza, Osindero, 1411.1784), D projects.
"""

import itertools
import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from gantrain.data.resolution import Resolution, size_of
from gantrain.models._base import DiscriminatorModule, GeneratorModule
from gantrain.models._layers import BatchNorm1d, Count, Head, Share, init_weights

Deviation = Annotated[float, Field(ge=0)]
Widths = Annotated[list[Count], Field(min_length=1)]


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
        z_distribution: Literal["normal", "uniform"] = "uniform",
        hidden: Widths = [1200, 1200],  # noqa: B006
        embedding_dim: Count = 32,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.z_dim, self.num_classes = z_dim, num_classes
        self.z_distribution = z_distribution
        self._shape = (channels, *size_of(resolution))
        self.embed = nn.Embedding(num_classes, embedding_dim) if num_classes else None
        widths = [z_dim + (embedding_dim if num_classes else 0), *hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(BatchNorm1d(w) if batch_norm else nn.Identity() for w in hidden)
        self.to_image = nn.Linear(widths[-1], math.prod(self._shape))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = z if self.embed is None else torch.cat([z, self.embed(y)], dim=1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.relu(norm(layer(x)))
        return torch.tanh(self.to_image(x)).reshape(-1, *self._shape)


class Discriminator(DiscriminatorModule):
    """Images (N, C, H, W), y (N,) or None -> logits (N,).

    pieces: of maxout, max over k linear maps; 0 takes LeakyReLU 0.2 instead.
    input_noise, noise: standard deviation of the Gaussian noise added to the input and to every
    hidden layer in training. weight_norm: w = g v / ||v|| (1602.07868). Both are of the
    classifier of 1606.03498 on MNIST.
    """

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        hidden: Widths = [240, 240],  # noqa: B006
        pieces: Annotated[int, Field(ge=0)] = 5,
        dropout: Share = 0.0,
        input_noise: Deviation = 0.0,
        noise: Deviation = 0.0,
        weight_norm: bool = False,
    ) -> None:
        super().__init__()
        self._pieces, self._input_noise, self._noise = pieces, input_noise, noise
        widths = [channels * math.prod(size_of(resolution)), *hidden]
        self.layers = nn.ModuleList(
            nn.Linear(a, b * max(pieces, 1)) for a, b in itertools.pairwise(widths)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = Head(widths[-1], num_classes)
        if weight_norm:
            init_weights(self.layers, lambda weight: nn.init.kaiming_normal_(weight, a=0.2))
            for layer in self.layers:
                parametrizations.weight_norm(layer)

    def features(self, images: Tensor) -> Tensor:
        """The last hidden layer."""
        x = self._blurred(images.flatten(1), self._input_noise)
        for layer in self.layers:
            x = layer(x)
            if self._pieces:
                x = x.unflatten(1, (-1, self._pieces)).amax(2)
            else:
                x = functional.leaky_relu(x, 0.2)
            x = self._blurred(self.dropout(x), self._noise)
        return x

    def _blurred(self, x: Tensor, noise: float) -> Tensor:
        return x + noise * torch.randn_like(x) if self.training and noise else x
