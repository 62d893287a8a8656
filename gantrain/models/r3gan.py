"""R3GAN: Huang et al., The GAN is dead; long live the GAN! A Modern Baseline GAN, 2501.05441.

No normalisation: bottleneck blocks as in ResNeXt, inverted, with a grouped 3x3 convolution and the
fix-up start (1901.09321), whose last convolution is 0. Bilinear resampling; a learned 4x4 basis
opens G, a learned 4x4 filter closes D. Its game is relativistic pairing with r1 and r2.
"""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ganinfer.errors import ConfigError
from gantrain.data.resolution import Resolution
from gantrain.models._base import DiscriminatorModule, GeneratorModule
from gantrain.models._layers import Count, Head, start_and_doublings

# Of LeakyReLU 0.2, so that maps keep their variance.
GAIN = math.sqrt(2 / (1 + 0.2**2))


class Generator(GeneratorModule):
    """z (N, Z), y (N,) or None -> images (N, C, H, W) in [-1, 1].

    widths: of the stages from the smallest maps on, one for the start and each doubling, or a
    single one for all. cardinality: groups of the 3x3 convolutions. expansion: of their width.
    The paper's last layer is linear; tanh keeps the images in range.
    """

    only_square = False

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        z_dim: Count = 64,
        widths: Annotated[list[Count], Field(min_length=1)] = [128],  # noqa: B006
        blocks: Count = 2,
        cardinality: Count = 16,
        expansion: Count = 2,
        embedding_dim: Count = 64,
    ) -> None:
        super().__init__()
        self.z_dim, self.num_classes, self.z_distribution = z_dim, num_classes, "normal"
        start, doublings = start_and_doublings(self, resolution)
        stages = stage_widths(widths, doublings)
        depth = blocks * len(stages)
        self.embed = nn.Embedding(num_classes, embedding_dim) if num_classes else None
        condition_dim = z_dim + (embedding_dim if num_classes else 0)
        self.basis = nn.Parameter(torch.randn(stages[0], *start))
        self.project = nn.Linear(condition_dim, stages[0], bias=False)
        nn.init.normal_(self.project.weight, std=condition_dim**-0.5)
        layers: list[nn.Module] = []
        for n, width in enumerate(stages):
            if n:
                layers += [Up(stages[n - 1]), _transition(stages[n - 1], width)]
            layers += [Block(width, cardinality, expansion, depth) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)
        self.to_image = _conv(stages[-1], channels, 1, gain=1.0)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        condition = z if self.embed is None else torch.cat([z, self.embed(y)], dim=1)
        x = self.basis * self.project(condition)[:, :, None, None]
        return torch.tanh(self.to_image(self.layers(x)))


class Discriminator(DiscriminatorModule):
    """Images (N, C, H, W), y (N,) or None -> logits (N,). Options as G's, widths in G's order."""

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        widths: Annotated[list[Count], Field(min_length=1)] = [128],  # noqa: B006
        blocks: Count = 2,
        cardinality: Count = 16,
        expansion: Count = 2,
    ) -> None:
        super().__init__()
        start, doublings = start_and_doublings(self, resolution)
        stages = stage_widths(widths, doublings)[::-1]
        depth = blocks * len(stages)
        self.from_image = _conv(channels, stages[0], 1, gain=1.0)
        layers: list[nn.Module] = []
        for n, width in enumerate(stages):
            if n:
                layers += [Down(stages[n - 1]), _transition(stages[n - 1], width)]
            layers += [Block(width, cardinality, expansion, depth) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)
        last = stages[-1]
        self.basis = nn.Conv2d(last, last, start, groups=last, bias=False)
        nn.init.normal_(self.basis.weight, std=math.prod(start) ** -0.5)
        self.head = Head(last, num_classes)
        nn.init.normal_(self.head.to_logit.weight, std=last**-0.5)
        nn.init.zeros_(self.head.to_logit.bias)
        if self.head.embed is not None:
            nn.init.normal_(self.head.embed.weight, std=last**-0.5)

    def features(self, images: Tensor) -> Tensor:
        """The last maps, weighted by the basis."""
        features: Tensor = self.basis(self.layers(self.from_image(images)))
        return features.flatten(1)


class Block(nn.Module):
    """x + conv1(act(grouped conv3(act(conv1(x))))), with biases before the activations."""

    def __init__(self, width: int, cardinality: int, expansion: int, depth: int) -> None:
        super().__init__()
        wide = width * expansion
        if wide % cardinality:
            raise ConfigError(
                f"r3gan cardinality: found {cardinality}; expected a divisor of every stage's"
                f" {wide} channels (width {width} x expansion {expansion})"
            )
        # Fix-up: with 3 layers a branch, the inner ones are scaled by depth^(-1/4).
        gain = GAIN * depth**-0.25
        self.conv1 = _conv(width, wide, 1, gain=gain)
        self.conv2 = _conv(wide, wide, 3, gain=gain, groups=cardinality)
        self.conv3 = nn.Conv2d(wide, width, 1, bias=False)
        nn.init.zeros_(self.conv3.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.leaky_relu(self.conv1(x), 0.2)
        h = functional.leaky_relu(self.conv2(h), 0.2)
        out: Tensor = self.conv3(h)
        return x + out


class Up(nn.Module):
    """Bilinear, x2."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("kernel", 4 * _bilinear(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype)
        return functional.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


class Down(nn.Module):
    """Bilinear, / 2."""

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("kernel", _bilinear(channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype)
        return functional.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def _bilinear(channels: int) -> Tensor:
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(row, row).expand(channels, 1, 4, 4).clone()


def _transition(in_channels: int, out_channels: int) -> nn.Module:
    if in_channels == out_channels:
        return nn.Identity()
    return _conv(in_channels, out_channels, 1, gain=1.0, bias=False)


def _conv(
    in_channels: int,
    out_channels: int,
    size: int,
    *,
    gain: float,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, groups=groups, bias=bias)
    nn.init.normal_(conv.weight, std=gain / math.sqrt(conv.weight[0].numel()))
    if bias:
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def stage_widths(widths: list[int], doublings: int) -> list[int]:
    """One width for the start and each doubling.

    Raises:
        ConfigError: neither one nor as many as there are stages.
    """
    if len(widths) == 1:
        return widths * (doublings + 1)
    if len(widths) != doublings + 1:
        raise ConfigError(
            f"r3gan widths: found {len(widths)}; expected 1, or {doublings + 1}, one for the start"
            f" and each of {doublings} doublings"
        )
    return widths
