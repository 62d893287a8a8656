"""The classifier that gives features where no other network is at hand.

N images, K classes, F features, S numbers of an early map. A small CNN that the project trains on
the dataset itself, in seconds on a CPU; its scores compare generators of that dataset with each
other and are no Inception scores. A dataset without labels is classified by which of four rotations
an image has undergone (Gidaris, Singh, Komodakis, 1803.07728).
"""

import copy
import itertools
import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ganinfer.files import write_atomic
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset, to_floats
from gantrain.data.streamed import StreamedImages
from gantrain.data.windows import StreamedBatches
from gantrain.distributed import alone
from gantrain.extractors._base import Seen
from gantrain.extractors._pyramid import Pyramid, freeze

log = logging.getLogger(__name__)

# Raised whenever the network or its training changes, so that cached weights are not mistaken.
CLASSIFIER_VERSION = 1
SPATIAL_CHANNELS = 7  # of an early map, as sFID takes them
_BATCH = 100
_MOST_PIXELS = 128  # of a side, that a random network sees

Shape = tuple[int, int, int]  # (H, W, C)


class Classifier(nn.Module):
    """uint8-scaled float images (N, C, H, W) in [-1, 1] -> features (N, 64), logits (N, K).

    shape: of an image, (H, W, C).
    """

    num_features = 64

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        *size, channels = shape
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise([channels, 32, 64, self.num_features]):
            stride = 2 if max(size) >= 8 else 1
            layers += [
                nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
            ]
            size = [-(-side // stride) for side in size]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(self.num_features * math.prod(size), self.num_features)
        self.to_logits = nn.Linear(self.num_features, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> features (N, F), logits (N, K), spatial (N, S): 7 channels of the second map."""
        spatial = self.trunk[:6](images)
        features = self.head(self.trunk[6:](spatial).flatten(1))
        logits = self.to_logits(torch.relu(features))
        return features, logits, spatial[:, :SPATIAL_CHANNELS].flatten(1)


class ClassifierExtractor:
    """A dataset's own classifier; its K logits are the dataset's classes, or four rotations."""

    resizer = "none"

    def __init__(
        self, network: Classifier, dataset: Dataset, *, sees_classes: bool, device: torch.device
    ) -> None:
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device
        self.sees_classes = sees_classes
        self.name = "classifier" if sees_classes else "classifier of rotations"
        self.key = f"{self.name} v{CLASSIFIER_VERSION} {dataset.sha256} {device.type}"

    def __call__(self, images: Tensor) -> Seen:
        """float32 (N, C, H, W) on [0, 255] -> Seen."""
        features, logits, spatial = self.network(images / 127.5 - 1)
        return Seen(features, logits, spatial)


class ClassifierPyramid(Pyramid):
    """The three maps of a dataset's own classifier.

    shape: of an image, (H, W, C).
    """

    widths = (32, 64, 64)

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.trunk = freeze(Classifier(shape, 2).trunk)

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Pyramid`."""
        maps = [self.trunk[:3](images)]  # a convolution, a norm that is folded, and ReLU
        for start in (3, 6):
            maps.append(self.trunk[start : start + 3](maps[-1]))
        return maps

    def learn(
        self, dataset: Dataset, device: torch.device, progress: Progress | None = None
    ) -> None:
        """Those of the classifier that the metrics have, trained now if it was not yet."""
        show = partial(progress, "training the classifier") if progress else None
        network = dataset_classifier(dataset, device=device, progress=show).network
        self.trunk.load_state_dict(freeze(copy.deepcopy(network.trunk)).state_dict())


class RandomExtractor:
    """The same network untrained, for images that no dataset is known of: it only tells apart.

    shape: of an image, (H, W, C). Larger ones than 128 pixels are first made smaller, by means over
    squares of whole pixels; the head would have 67 million weights at 1024.
    """

    name = "random network"
    resizer = "none"
    sees_classes = False

    def __init__(self, shape: Shape, device: torch.device | str = "cpu") -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            height, width, channels = shape
            self._square = max(1, max(height, width) // _MOST_PIXELS)
            size = height // self._square, width // self._square
            network = Classifier((*size, channels), 2)
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)
        self.key = f"{self.name} v{CLASSIFIER_VERSION} {shape} {self.device.type}"

    def __call__(self, images: Tensor) -> Seen:
        """float32 (N, C, H, W) on [0, 255] -> Seen."""
        features, logits, spatial = self.network(avg_pool2d(images, self._square) / 127.5 - 1)
        return Seen(features, logits, spatial)


class StackedExtractor:
    """A stacked dataset seen channel by channel, through one classifier of the grey images.

    The features of the channels stand side by side; a triple's logit is the sum of its channels'
    log-probabilities.
    """

    name = "classifier of the channels"
    resizer = "none"
    sees_classes = True

    def __init__(self, channel: ClassifierExtractor) -> None:
        self._channel, self.network = channel, channel.network
        self.device = channel.device
        self.key = f"stacked {channel.key}"

    def __call__(self, images: Tensor) -> Seen:
        """float32 (N, 3, H, W) on [0, 255] -> Seen."""
        seen = [self._channel(images[:, channel : channel + 1]) for channel in range(3)]
        first, second, third = (s.logits.log_softmax(1) for s in seen if s.logits is not None)
        logits = first[:, :, None, None] + second[:, None, :, None] + third[:, None, None, :]
        features = torch.cat([s.features for s in seen], dim=1)
        spatial = torch.cat([s.spatial for s in seen if s.spatial is not None], dim=1)
        return Seen(features, logits.flatten(1), spatial)


def dataset_classifier(
    dataset: Dataset,
    *,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ClassifierExtractor:
    """The classifier of a dataset, or of its channels: from the cache, or trained now.

    Args:
        dataset: what it learns to classify.
        device: where it runs.
        cache: folder of trained classifiers, named by the dataset's sha256; the user's cache
            folder by default.
        progress: called with (steps done, steps in all) while it trains.

    Returns:
        The feature extractor.
    """
    folder = cache or user_cache_path("ganpipe") / "classifiers"
    path = folder / f"{dataset.sha256}-v{CLASSIFIER_VERSION}.safetensors"
    num_classes = dataset.stacked or dataset.num_classes or 4
    shape = (dataset.height, dataset.width, 1 if dataset.stacked else dataset.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(shape, num_classes)
    extractor = ClassifierExtractor(
        network, dataset, sees_classes=bool(dataset.num_classes), device=torch.device(device)
    )
    try:
        network.load_state_dict(load(path.read_bytes()))
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError, RuntimeError) as error:
        log.warning("%s: cannot be used (%s); training the classifier anew", path, error)
    else:
        return extractor
    _train_on(network, dataset, torch.device(device), progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save({k: v.cpu() for k, v in network.state_dict().items()}))
    except OSError as error:
        log.warning("%s: the classifier is not kept for the next time (%s)", path, error)
    return extractor


def train_classifier(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Classifier:
    """A classifier trained from scratch.

    Args:
        images: (M, H, W, C). labels: (M,) in [0, num_classes).
        num_classes: K.
        device: where it is trained, and stays.
        progress: called with (steps done, steps in all).

    Returns:
        The network, in eval mode.
    """

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        chosen = np.sort(rng.integers(len(images), size=_BATCH))
        floats = to_floats(torch.from_numpy(images[chosen]).to(device))
        return _shift(floats, rng), torch.from_numpy(labels[chosen]).to(device)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(images.shape[1:], num_classes)
    _fit(network.to(device), batch, len(images), progress)
    return network


def _train_on(
    network: Classifier,
    dataset: Dataset,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Learn a dataset's classes, those of its channels, or rotations, as the case may be."""
    draw = _draws(dataset, device)

    def batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        images, labels = draw(rng)
        if labels is None:
            y = torch.from_numpy(rng.integers(4, size=_BATCH)).to(device)
            turned = torch.stack([_turned(images, k) for k in range(4)])
            return turned[y, torch.arange(_BATCH, device=device)], y
        y = labels
        if dataset.stacked:  # one channel of each image, and its digit of the class's number
            channel = torch.from_numpy(rng.integers(3, size=_BATCH)).to(device)
            images = images[torch.arange(_BATCH, device=device), channel][:, None]
            y = y // dataset.stacked ** (2 - channel) % dataset.stacked
        return _shift(images, rng), y

    _fit(network.to(device), batch, len(dataset), progress)


def _draws(
    dataset: Dataset, device: torch.device
) -> Callable[[np.random.Generator], tuple[Tensor, Tensor | None]]:
    """What draws a batch of a dataset: any images, or, where they lie in shards, the next ones."""
    if isinstance(dataset.images, StreamedImages):
        batches = StreamedBatches(dataset, _BATCH, seed=0, device=device)

        def following(_rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
            with alone():
                return batches.next()

        return following

    def chosen(rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        rows = np.sort(rng.integers(len(dataset), size=_BATCH))
        images = to_floats(torch.from_numpy(dataset.images[rows]).to(device))
        labels = dataset.labels
        return images, None if labels is None else torch.from_numpy(labels[rows]).to(device)

    return chosen


def _fit(
    network: Classifier,
    batch: Callable[[np.random.Generator], tuple[Tensor, Tensor]],
    num_images: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Three epochs, and at least 1,200 steps, of Adam with a one-cycle learning rate."""
    rng = np.random.default_rng(0)
    num_steps = min(max(1200, 3 * num_images // _BATCH), 6000)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=num_steps)
    network.train().requires_grad_(True)
    for step in range(num_steps):
        images, y = batch(rng)
        _, logits, _ = network(images)
        loss = nn.functional.cross_entropy(logits, y)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if progress and (step + 1) % 5 == 0:
            progress(step + 1, num_steps)
    network.eval().requires_grad_(False)


def _shift(images: Tensor, rng: np.random.Generator) -> Tensor:
    """The batch moved by up to a pixel in each direction (up to a tenth of a larger image)."""
    height, width = images.shape[2:]
    reach = max(1, min(height, width) // 14)
    down, right = (reach + int(n) for n in rng.integers(-reach, reach + 1, size=2))
    padded = nn.functional.pad(images, [reach] * 4, value=-1.0)
    return padded[:, :, down : down + height, right : right + width]


def _turned(images: Tensor, quarters: int) -> Tensor:
    """The batch turned by so many quarters, and squashed into its own shape if it is not square."""
    turned = torch.rot90(images, quarters, (2, 3))
    if turned.shape == images.shape:
        return turned
    return nn.functional.interpolate(turned, images.shape[2:], mode="bilinear", antialias=True)
