"""A prepared dataset, and the endless, seeded, resumable order in which training sees it.

N images, H high and W wide, C channels, K classes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import record_function

from ganinfer.errors import DataError, DataNotFound
from gantrain.data.prepare import FORMAT_VERSION, INDEX_VERSION, NOT_SQUARE_VERSION
from gantrain.data.resolution import Resolution, resolution_of
from gantrain.data.streamed import StreamedImages
from gantrain.distributed import my_share


class Dataset:
    """A prepared dataset, mapped into memory, or whose images are read from their shards.

    Attributes:
        images: uint8 (N, H, W, C), or float32 (N, 1, 1, C) in [-1, 1] if they are points.
        labels: int64 (N,) in [0, K), or None when unlabelled.
        height, width, channels: of the images. classes: the K class names, empty when unlabelled.
        points: None for images; for points the K modes they were drawn around.
        stacked: how many classes each channel of a stacked set has; 0 otherwise.
        sha256: of the images and labels; names the dataset in caches and bundles.
        skipped: images that were left out -> the reason. warnings: what else may be doubtful.
        path: of the dataset, or of its shards. index: the folder of dataset.json.
    """

    def __init__(self, path: Path) -> None:
        """Open and check a folder that `prepare` wrote.

        Raises:
            DataError: it is missing, incomplete, or a label lies outside the classes.
        """
        try:
            description = json.loads((path / "dataset.json").read_text())
        except FileNotFoundError:
            raise DataNotFound(
                f"{path}: no prepared dataset there (no dataset.json);"
                f" make one with: gan prepare SOURCE {path}"
            ) from None
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path}/dataset.json: {error}; prepare it again, with --overwrite"
            ) from None
        version = description.get("format_version")
        if version not in (FORMAT_VERSION, INDEX_VERSION, NOT_SQUARE_VERSION):
            raise DataError(
                f"{path}/dataset.json: format_version {version}, expected {FORMAT_VERSION} to"
                f" {NOT_SQUARE_VERSION}; prepare it again, with --overwrite"
            )
        self.path = self.index = path
        side = description.get("resolution")
        self.height: int = description.get("height", side)
        self.width: int = description.get("width", side)
        self.channels: int = description["channels"]
        self.classes: list[str] = description["classes"]
        self.sha256: str = description["sha256"]
        self.stacked: int = description.get("stacked", 0)
        self.skipped: dict[str, str] = description.get("skipped", {})
        self.warnings: list[str] = description.get("warnings", [])
        modes = description.get("modes")
        self.points = None if modes is None else Modes(np.array(modes["centres"]), modes["sigma"])
        shape = (description["num_images"], self.height, self.width, self.channels)
        dtype = "uint8" if self.points is None else "float32"
        self.images: NDArray[Any] | StreamedImages
        if version == INDEX_VERSION:
            self.images = StreamedImages(path, Path(description["folder"]), shape)
        else:
            self.images = _map(path / "images.npy", dtype, shape)
        self.labels: NDArray[np.int64] | None = None
        if self.classes:
            self.labels = _map(path / "labels.npy", "int64", shape[:1])
            if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
                outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
                first = int(outside[0])
                raise DataError(
                    f"{path}/labels.npy: label {self.labels[first]} of image {first}"
                    f" ({outside.size} such) lies outside the {len(self.classes)} classes,"
                    f" 0 to {len(self.classes) - 1}; mend the labels and prepare again"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def resolution(self) -> Resolution:
        """The side of the images, or (height, width)."""
        return resolution_of((self.height, self.width))

    @property
    def num_classes(self) -> int:
        """K, 0 when the dataset has no labels."""
        return len(self.classes)

    def floats(self, indices: NDArray[np.int64]) -> Tensor:
        """Images of these indices (N,), as networks take them: float32 (N, C, H, W) in [-1, 1]."""
        return to_floats(torch.from_numpy(self.images[indices]))


@dataclass(frozen=True)
class Modes:
    """What points were drawn around: centres float64 (K, C), each with a spread of sigma."""

    centres: NDArray[np.float64]
    sigma: float


def to_floats(images: Tensor) -> Tensor:
    """uint8 (N, H, W, C), or points, -> float32 (N, C, H, W) in [-1, 1]."""
    images = images.permute(0, 3, 1, 2)
    return images.float().div_(127.5).sub_(1.0) if images.dtype == torch.uint8 else images


def mirrored(images: Tensor, flipped: Tensor) -> Tensor:
    """Images (N, C, H, W), those of flipped (N,) from right to left."""
    return torch.where(flipped.to(images.device)[:, None, None, None], images.flip(3), images)


class RealBatches:
    """Endless batches of real images: every epoch once through a new seeded permutation.

    The i-th image ever drawn depends on (seed, i) alone, so `position` is the whole state.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int,
        device: torch.device,
        mirror: bool = False,
    ) -> None:
        """Start at position 0; the whole set moves to a GPU if half its free memory suffices.

        batch_size is of all processes; each gets its share of the rows. mirror flips every image
        with probability 1/2.
        """
        assert isinstance(dataset.images, np.ndarray)
        self.position = 0
        self._batch_size = batch_size
        self._seed, self._mirror = seed, mirror
        self._device = device
        self._size = len(dataset)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)
        self._flipped = torch.empty(0, dtype=torch.bool)
        self._images = torch.from_numpy(dataset.images)
        self._labels = (
            None if dataset.labels is None else torch.from_numpy(np.array(dataset.labels))
        )
        if device.type == "cuda" and self._images.nbytes < torch.cuda.mem_get_info(device)[0] / 2:
            self._images = self._images.to(device)
            self._labels = None if self._labels is None else self._labels.to(device)

    @record_function("data")
    def next(self) -> tuple[Tensor, Tensor | None]:
        """The next batch: images float32 (N, C, H, W) in [-1, 1]; labels int64 (N,) or None."""
        indices, flipped = self._next_indices()
        indices = my_share(indices).to(self._images.device)
        images = to_floats(self._images[indices].to(self._device, non_blocking=True))
        if self._mirror:
            images = mirrored(images, my_share(flipped))
        labels = None if self._labels is None else self._labels[indices].to(self._device)
        return images, labels

    def _next_indices(self) -> tuple[Tensor, Tensor]:
        """Indices of the next whole batch, and which of its images are mirrored."""
        indices: list[Tensor] = []
        flipped: list[Tensor] = []
        missing = self._batch_size
        while missing:
            epoch, offset = divmod(self.position, self._size)
            if epoch != self._epoch:
                rng = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
                self._order, self._epoch = torch.from_numpy(rng.permutation(self._size)), epoch
                self._flipped = torch.from_numpy(rng.random(self._size) < 0.5)
            end = min(offset + missing, self._size)
            indices.append(self._order[offset:end])
            flipped.append(self._flipped[offset:end])
            self.position += end - offset
            missing -= end - offset
        return torch.cat(indices), torch.cat(flipped)


def _map(path: Path, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        # Copy-on-write, because torch takes only arrays that it may write to.
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); prepare the dataset again") from None
    if array.dtype != dtype or array.shape != shape:
        raise DataError(
            f"{path}: {array.dtype} {array.shape}, dataset.json says {dtype} {shape};"
            " prepare the dataset again"
        )
    return array
