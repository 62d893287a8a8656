"""Projected GAN: Sauer, Chitta, Mueller, Geiger, 2111.01007, section 3.

D sees images through a frozen network that was trained for something else. Its maps of L scales are
mixed by fixed random convolutions, over channels (1x1, section 3.2) and over scales (each coarser
one is convolved 3x3, upsampled, and added to the finer one), so that D cannot attend to what is
prominent in them alone; a small discriminator judges each scale by a logit of its own.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganinfer.errors import ConfigError
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.data.resolution import Resolution, size_of
from gantrain.extractors._pyramid import Pyramid, freeze
from gantrain.extractors.classifier import ClassifierPyramid
from gantrain.extractors.inception import InceptionPyramid
from gantrain.models._base import DiscriminatorModule
from gantrain.models._layers import Count, Head

_LAST = 4  # pixels of the maps that a discriminator ends with, at most
_MOST = 8  # times the width, at most


class Discriminator(DiscriminatorModule):
    """Images (N, C, H, W), y (N,) or None -> logits (N, L), one of each scale.

    A loss that is a mean over logits is the paper's sum over scales, divided by L. The paper puts
    all layers of D under spectral norm: add that regularizer.

    Options:
        extractor: what D sees through: "inception", with the published weights, or "classifier",
            which is trained on the dataset itself. FID by the same features flatters the generator
            (Kynkäänniemi et al., 2203.06026): measure by others.
        width: channels of the finest mixed maps; each coarser one has twice as many, up to 8 times.
    """

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        extractor: Literal["classifier", "inception"] = "classifier",
        width: Count = 64,
    ) -> None:
        super().__init__()
        self.pyramid = _pyramid(extractor, resolution, channels)
        with torch.no_grad():
            maps = self.pyramid(torch.zeros(1, channels, *size_of(resolution)))
        widths = [min(2**n, _MOST) * width for n in range(len(maps))]
        self.mixing = freeze(Mixing(self.pyramid.widths, widths))
        self.scales = nn.ModuleList(
            _judge(width, (map_.shape[2], map_.shape[3]), most=_MOST * widths[0])
            for width, map_ in zip(widths, maps, strict=True)
        )
        with torch.no_grad():
            sizes = [features.shape[1] for features in self._judged(maps)]
        self.head = Heads(sizes, num_classes)

    def learn(
        self, dataset: Dataset, device: torch.device, progress: Progress | None = None
    ) -> None:
        """Take the frozen network's weights."""
        self.pyramid.learn(dataset, device, progress)

    def features(self, images: Tensor) -> Tensor:
        """The last maps of all scales, flattened, side by side."""
        return torch.cat(self._judged(self.pyramid(images)), dim=1)

    def _judged(self, maps: list[Tensor]) -> list[Tensor]:
        mixed = self.mixing(maps)
        return [judge(map_) for judge, map_ in zip(self.scales, mixed, strict=True)]


class Mixing(nn.Module):
    """Maps of L scales, from the finest on -> as many of the same sizes and other widths."""

    def __init__(self, narrow: tuple[int, ...], wide: list[int]) -> None:
        super().__init__()
        self.channels = nn.ModuleList(map(_random(1), narrow, wide))
        self.scales = nn.ModuleList(map(_random(3), wide[1:], wide[:-1]))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        mixed = [layer(map_) for layer, map_ in zip(self.channels, maps, strict=True)]
        for n in reversed(range(len(self.scales))):
            size = mixed[n].shape[2:]
            coarser = self.scales[n](mixed[n + 1])
            mixed[n] = mixed[n] + functional.interpolate(coarser, size, mode="bilinear")
        return mixed


class Heads(nn.Module):
    """A `Head` of each scale: features (N, F), of all scales side by side, y -> logits (N, L)."""

    def __init__(self, sizes: list[int], num_classes: int) -> None:
        super().__init__()
        self.num_features, self._sizes = sum(sizes), sizes
        self.heads = nn.ModuleList(Head(size, num_classes) for size in sizes)

    def forward(self, features: Tensor, y: Tensor | None = None) -> Tensor:
        parts = torch.split(features, self._sizes, dim=1)
        logits = [head(part, y) for head, part in zip(self.heads, parts, strict=True)]
        return torch.stack(logits, dim=1)


def _pyramid(extractor: str, resolution: Resolution, channels: int) -> Pyramid:
    if resolution == 1:
        raise ConfigError("[model.discriminator] projected: points are no images")
    if extractor == "classifier":
        return ClassifierPyramid((*size_of(resolution), channels))
    if channels not in (1, 3):
        raise ConfigError(
            f'[model.discriminator] extractor = "inception": found images of {channels} channels,'
            ' expected 1 or 3; take "classifier"'
        )
    return InceptionPyramid()


def _random(kernel: int) -> Callable[[int, int], nn.Conv2d]:
    """Makes convolutions that keep the size, their weights He's (1502.01852)."""

    def make(narrow: int, wide: int) -> nn.Conv2d:
        layer = nn.Conv2d(narrow, wide, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(layer.weight)
        return layer

    return make


def _judge(width: int, size: tuple[int, int], *, most: int) -> nn.Sequential:
    """Halve maps down to 4 pixels, twice as wide each time, and flatten them."""
    layers: list[nn.Module] = []
    narrow, largest = width, max(size)
    while largest > _LAST or not layers:
        halves = largest > _LAST
        wide = min(2 * narrow, most)
        kernel, stride = (4, 2) if halves else (3, 1)
        layers += [nn.Conv2d(narrow, wide, kernel, stride, padding=1), nn.LeakyReLU(0.2)]
        narrow, largest = wide, largest // 2 if halves else largest
    return nn.Sequential(*layers, nn.Flatten())
