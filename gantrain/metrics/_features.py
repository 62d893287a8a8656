"""Features of images, and the classifier that gives them where no other network is at hand.

N images, K classes, F features. The classifier is a small CNN that the project trains on the
dataset itself, in seconds on a CPU; its scores compare generators of that dataset with each other
and are no Inception scores. A dataset without labels is classified by which of four rotations an
image has undergone (Gidaris, Singh, Komodakis, 1803.07728).
"""

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ganinfer.files import write_atomic
from gantrain.data import Dataset, Modes

log = logging.getLogger(__name__)

# Raised whenever the network or its training changes, so that cached weights are not mistaken.
CLASSIFIER_VERSION = 1
_BATCH = 100


@dataclass(frozen=True)
class Features:
    """N images and what a network sees in them. labels: the classes asked for, or None."""

    images: NDArray[Any]  # (N, H, W, C)
    features: NDArray[np.float64]  # (N, F)
    logits: NDArray[np.float64]  # (N, K)
    labels: NDArray[np.int64] | None


class Extractor(Protocol):
    """Images (N, H, W, C) -> Features.

    Attributes:
        name: for records. num_features: F. sees_classes: its K logits are the dataset's classes.
    """

    name: str
    num_features: int
    sees_classes: bool

    def __call__(self, images: NDArray[Any], labels: NDArray[np.int64] | None = None) -> Features:
        """See the class."""


class Classifier(nn.Module):
    """uint8-scaled float images (N, C, H, W) in [-1, 1] -> features (N, 64), logits (N, K)."""

    num_features = 64

    def __init__(self, resolution: int, channels: int, num_classes: int) -> None:
        super().__init__()
        width, layers, size = 32, [], resolution
        widths = [channels, width, 2 * width, self.num_features]
        for narrow, wide in itertools.pairwise(widths):
            stride = 2 if size >= 8 else 1
            layers += [
                nn.Conv2d(narrow, wide, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
            ]
            size = -(-size // stride)
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(self.num_features * size * size, self.num_features)
        self.to_logits = nn.Linear(self.num_features, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.head(self.trunk(images).flatten(1))
        return features, self.to_logits(torch.relu(features))


class ClassifierFeatures:
    """The features of a dataset's own classifier.

    Attributes:
        name: of the extractor, for records. sees_classes: whether its K logits are the dataset's
        classes (False: they are rotations).
    """

    def __init__(self, network: Classifier, *, sees_classes: bool, device: torch.device) -> None:
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device
        self.sees_classes = sees_classes
        self.num_features = network.num_features
        self.name = "classifier" if sees_classes else "classifier of rotations"

    @torch.no_grad()
    def __call__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None
    ) -> Features:
        """uint8 (N, H, W, C) and the labels (N,) that were asked for -> Features."""
        parts = [
            self._network(_normalise(torch.from_numpy(images[i : i + _BATCH]).to(self._device)))
            for i in range(0, len(images), _BATCH)
        ]
        features, logits = (
            torch.cat(part).double().cpu().numpy() for part in zip(*parts, strict=True)
        )
        return Features(images, features, logits, labels)


class Points:
    """Points are their own features; the logits are minus the distances to the modes, in sigmas."""

    name = "the points themselves"
    sees_classes = True

    def __init__(self, modes: Modes) -> None:
        self._modes = modes
        self.num_features = modes.centres.shape[1]

    def __call__(
        self, images: NDArray[np.float32], labels: NDArray[np.int64] | None = None
    ) -> Features:
        """float32 (N, 1, 1, C) -> Features."""
        points = images[:, 0, 0].astype(np.float64)
        distances = np.linalg.norm(points[:, None] - self._modes.centres[None], axis=2)
        return Features(images, points, -distances / self._modes.sigma, labels)


class StackedFeatures:
    """A stacked dataset seen channel by channel, through one classifier of the grey images.

    The features of the channels stand side by side; a triple's logit is the sum of its channels'
    log-probabilities.
    """

    name = "classifier of the channels"
    sees_classes = True

    def __init__(self, channel: ClassifierFeatures) -> None:
        self._channel = channel
        self.num_features = 3 * channel.num_features

    def __call__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None
    ) -> Features:
        """uint8 (N, H, W, 3) -> Features with K^3 logits."""
        parts = [self._channel(np.ascontiguousarray(images[..., c : c + 1])) for c in range(3)]
        features = np.concatenate([part.features for part in parts], axis=1)
        a, b, c = (_log_softmax(part.logits) for part in parts)
        logits = a[:, :, None, None] + b[:, None, :, None] + c[:, None, None, :]
        return Features(images, features, logits.reshape(len(images), -1), labels)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def dataset_features(
    dataset: Dataset,
    *,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Extractor:
    """The feature extractor that a dataset brings along; see `dataset_classifier`."""
    if dataset.points is not None:
        return Points(dataset.points)
    classifier = dataset_classifier(dataset, device=device, cache=cache, progress=progress)
    return StackedFeatures(classifier) if dataset.stacked else classifier


def dataset_classifier(
    dataset: Dataset,
    *,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ClassifierFeatures:
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
    channels = 1 if dataset.stacked else dataset.channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(dataset.resolution, channels, num_classes)
    extractor = ClassifierFeatures(
        network, sees_classes=bool(dataset.num_classes), device=torch.device(device)
    )
    try:
        network.load_state_dict(load(path.read_bytes()))
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError, RuntimeError) as error:
        log.warning("%s: cannot be used (%s); training the classifier anew", path, error)
    else:
        return extractor
    _train_classifier(network, dataset, torch.device(device), progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, save({k: v.cpu() for k, v in network.state_dict().items()}))
    except OSError as error:
        log.warning("%s: the classifier is not kept for the next time (%s)", path, error)
    return extractor


def _train_classifier(
    network: Classifier,
    dataset: Dataset,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Three epochs, and at least 1,200 steps, of Adam with a one-cycle learning rate."""
    rng = np.random.default_rng(0)
    num_steps = min(max(1200, 3 * len(dataset) // _BATCH), 6000)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=num_steps)
    network.train().requires_grad_(True)
    for step in range(num_steps):
        chosen = np.sort(rng.integers(len(dataset), size=_BATCH))
        images = _normalise(torch.from_numpy(dataset.images[chosen]).to(device))
        if dataset.labels is None:
            y = torch.from_numpy(rng.integers(4, size=_BATCH)).to(device)
            turned = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])
            images = turned[y, torch.arange(_BATCH, device=device)]
        else:
            y = torch.from_numpy(dataset.labels[chosen]).to(device)
            if dataset.stacked:  # one channel of each image, and its digit of the class's number
                channel = torch.from_numpy(rng.integers(3, size=_BATCH)).to(device)
                images = images[torch.arange(_BATCH, device=device), channel][:, None]
                y = y // dataset.stacked ** (2 - channel) % dataset.stacked
            images = _shift(images, rng)
        _, logits = network(images)
        loss = nn.functional.cross_entropy(logits, y)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if progress and (step + 1) % 20 == 0:
            progress(step + 1, num_steps)
    network.eval().requires_grad_(False)


def _shift(images: Tensor, rng: np.random.Generator) -> Tensor:
    """The batch moved by up to a pixel in each direction (up to a tenth of a larger image)."""
    reach = max(1, images.shape[-1] // 14)
    down, right = (int(n) for n in rng.integers(-reach, reach + 1, size=2))
    padded = nn.functional.pad(images, [reach] * 4, value=-1.0)
    size = images.shape[-1]
    return padded[:, :, reach + down : reach + down + size, reach + right : reach + right + size]


def _normalise(images: Tensor) -> Tensor:
    """uint8 (N, H, W, C) -> float32 (N, C, H, W) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
