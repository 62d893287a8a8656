"""Images as an extractor sees them: columns of numbers, one row an image, kept in chunks on disk.

A source of images is read CHUNK images at a time; what the metrics need of a chunk goes into one
file, written aside and renamed. A chunk whose file is there is not computed again: killed and
called again, the same command goes on with the next one, and equal chunks give figures equal to the
last digit. Several processes share the chunks out between them.

Columns: features float32 (N, F), logits float32 (N, K), spatial float32 (N, S), images uint8
(N, H, W, C).
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ganinfer.errors import DataError
from ganinfer.files import sha256_bytes, write_atomic
from gantrain.data.dataset import Dataset
from gantrain.distributed import barrier, rank, world_size
from gantrain.extractors._base import Extractor, see
from gantrain.metrics._moments import Moments

log = logging.getLogger(__name__)

CHUNK = 500
CACHE_BYTES = 8 << 30
_BATCH = 100  # images at once through the extractor
SEEN = ("features", "logits", "spatial")

Labels = NDArray[np.int64] | None
Batch = tuple[NDArray[Any], Labels]  # images (N, H, W, C), labels (N,)


class Source(Protocol):
    """Images with numbers: 0, 1, ..., len - 1.

    Attributes:
        key: differs wherever an image may; names the source in the cache.
        labels: the classes that were asked for, int64 (N,), or None.
    """

    @property
    def key(self) -> str: ...

    @property
    def labels(self) -> Labels: ...

    def __len__(self) -> int: ...

    def read(self, numbers: range) -> NDArray[Any] | Sequence[NDArray[Any]]:
        """Images of these numbers, uint8 (N, H, W, C), or points float32 (N, 1, 1, C).

        A list of uint8 (H, W, C) where sizes differ.
        """


class DatasetImages:
    """A dataset as a source; the labels are those of the images."""

    def __init__(self, dataset: Dataset) -> None:
        self._images, self.labels = dataset.images, dataset.labels
        self.key = f"dataset {dataset.sha256}"

    def __len__(self) -> int:
        return len(self._images)

    def read(self, numbers: range) -> NDArray[Any]:
        """See Source."""
        return np.asarray(self._images[numbers.start : numbers.stop])


def in_batches(source: Source, batch_size: int = _BATCH) -> Iterator[Batch]:
    """All images of a source and their labels, a batch at a time."""
    for start in range(0, len(source), batch_size):
        numbers = range(start, min(start + batch_size, len(source)))
        labels = source.labels
        images = np.asarray(source.read(numbers))
        yield images, None if labels is None else labels[start : numbers.stop]


class Measured:
    """N images as an extractor sees them; a column is read from its chunks when it is asked for.

    Attributes:
        labels: the classes that were asked for, int64 (N,), or None.
        source: where the images come from; None if they came once.
        device: where figures are computed.
    """

    def __init__(
        self, chunks: Sequence[Mapping[str, NDArray[Any]]], labels: Labels, device: torch.device
    ) -> None:
        self._chunks, self.labels, self.device = chunks, labels, device
        self.source: Source | None = None

    def __len__(self) -> int:
        return sum(len(next(iter(chunk.values()))) for chunk in self._chunks)

    def need(self, *columns: str) -> None:
        """See these columns of all images, where they have not been seen."""

    def stream(self, column: str) -> Iterator[NDArray[Any]]:
        """One column, chunk by chunk."""
        self.need(column)
        for chunk in self._chunks:
            yield chunk[column]

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """float32 (N, F)."""
        return self._whole("features")

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """float32 (N, K)."""
        return self._whole("logits")

    @cached_property
    def images(self) -> NDArray[Any]:
        """uint8 (N, H, W, C), or points float32 (N, 1, 1, C)."""
        return self._whole("images")

    @cached_property
    def moments(self) -> Moments:
        """Of the features."""
        return Moments.of(self.stream("features"), self.device)

    def _whole(self, column: str) -> NDArray[Any]:
        if not len(self):
            raise DataError("no images to measure; expected 2 or more")
        return np.concatenate(list(self.stream(column)))


def measure_once(
    batches: Iterable[Batch], open_extractor: Callable[[], Extractor], *columns: str
) -> Measured:
    """See these columns of images that come once, in batches of any size; they stay in memory."""
    chunks, labels = [], []
    device = torch.device("cpu")
    for images, asked in batches:
        chunks.append(_see(images, open_extractor, set(columns) | {"number"}))
        labels.append(asked)
    if set(columns) & set(SEEN):
        device = open_extractor().device
    known = [part for part in labels if part is not None]
    whole = np.concatenate(known) if known and len(known) == len(labels) else None
    return Measured(chunks, whole, device)


class MeasuredSource(Measured):
    """A source's images; what is seen of them is kept in a cache."""

    def __init__(
        self,
        source: Source,
        open_extractor: Callable[[], Extractor],
        *,
        cache: Path | None = None,
        device: torch.device | str = "cpu",
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Nothing is seen yet.

        Args:
            source: the images.
            open_extractor: gives the network, if a column needs it; always the same one.
            cache: folder of what has been measured; the user's cache folder by default.
            device: where figures are computed.
            progress: called with (images done, images in all).
        """
        self._folder = (cache or default_cache()) / _short(source.key)
        files = [
            _ChunkFile(self._folder, range(start, min(start + CHUNK, len(source))), open_extractor)
            for start in range(0, len(source), CHUNK)
        ]
        super().__init__(files, source.labels, torch.device(device))
        self.source = source
        self._files, self._progress = files, progress
        self._seen: set[str] = set()

    def __len__(self) -> int:
        assert self.source is not None
        return len(self.source)

    def need(self, *columns: str) -> None:
        """See these columns of all images, where the cache does not have them.

        Raises:
            DataError: the extractor does not give a column, or the cache cannot be written.
        """
        if set(columns) <= self._seen:
            return
        assert self.source is not None
        with self._kept():
            about = json.dumps({"source": self.source.key}, indent=2)
            write_atomic(self._folder / "about.json", about.encode())
            for file in self._files[rank() :: world_size()]:
                file.need(self.source, set(columns))
                if self._progress:
                    self._progress(file.numbers.stop, len(self))
        barrier()
        self._seen |= set(columns)
        if rank() == 0:
            _prune(self._folder.parent, keep=self._folder)

    def see(self, number: int, *columns: str) -> None:
        """See these columns of one chunk, 0 to the last, where the cache does not have them."""
        assert self.source is not None
        with self._kept():
            self._files[number].need(self.source, set(columns))

    def missing(self, *columns: str) -> list[int]:
        """Numbers of the chunks of which the cache does not have all these columns."""
        return [number for number, file in enumerate(self._files) if file.missing(set(columns))]

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise DataError(f"{self._folder}: what is measured cannot be kept ({error})") from None


class _ChunkFile(Mapping[str, NDArray[Any]]):
    """The columns of one chunk: a file of its images, and one of what an extractor saw in them."""

    def __init__(
        self, folder: Path, numbers: range, open_extractor: Callable[[], Extractor]
    ) -> None:
        self.numbers = numbers
        self._folder, self._open_extractor = folder, open_extractor

    def need(self, source: Source, columns: set[str]) -> None:
        """Add columns that are missing."""
        if not (missing := self.missing(columns)):
            return
        images = source.read(self.numbers)
        if "images" in missing:
            write_atomic(self._path("images"), save({"images": np.ascontiguousarray(images)}))
        if seen := missing & set(SEEN):
            kept = {column for column in SEEN if self._has(column)}
            columns_seen = _see(images, self._open_extractor, seen | kept)
            write_atomic(self._path("features"), save(columns_seen))

    def missing(self, columns: set[str]) -> set[str]:
        """Those of the columns that are not there."""
        return {column for column in columns if not self._has(column)}

    def __getitem__(self, column: str) -> NDArray[Any]:
        with safe_open(self._path(column), framework="numpy") as file:
            rows: NDArray[Any] = file.get_tensor(column)
        return rows[: len(self.numbers)]

    def __iter__(self) -> Iterator[str]:
        return filter(self._has, ("images", *SEEN))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _path(self, column: str) -> Path:
        kind = "images" if column == "images" else _short(self._open_extractor().key)
        return self._folder / f"{self.numbers.start // CHUNK:06}-{kind}.safetensors"

    def _has(self, column: str) -> bool:
        path = self._path(column)
        try:
            with safe_open(path, framework="numpy") as file:
                if column not in file.keys():  # noqa: SIM118  (not a dict)
                    return False
                num_rows = file.get_slice(column).get_shape()[0]
        except FileNotFoundError:
            return False
        except (OSError, SafetensorError) as error:
            log.warning("%s: cannot be used (%s); measuring those images again", path, error)
            return False
        return bool(num_rows >= len(self.numbers))


def default_cache() -> Path:
    """The user's folder of what has been measured."""
    return user_cache_path("ganpipe") / "measured"


def _see(
    images: NDArray[Any] | Sequence[NDArray[Any]],
    open_extractor: Callable[[], Extractor],
    columns: set[str],
) -> dict[str, NDArray[Any]]:
    """The columns of some images; "number" counts them."""
    found: dict[str, NDArray[Any]] = {}
    if "number" in columns:
        found["number"] = np.arange(len(images))
    if "images" in columns:
        found["images"] = np.asarray(images)
    if wanted := [column for column in SEEN if column in columns]:
        extractor = open_extractor()
        parts = [see(extractor, batch) for batch in _of_one_shape(images)]
        for column in wanted:
            rows = [getattr(part, column) for part in parts]
            if any(part is None for part in rows):
                raise DataError(f"{extractor.name} gives no {column}; choose another extractor")
            found[column] = torch.cat(rows).cpu().numpy()
    return found


def _of_one_shape(images: NDArray[Any] | Sequence[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Batches of at most _BATCH images, in order; where sizes differ, a new one at each change."""
    if isinstance(images, np.ndarray):
        runs = [images]
    else:
        runs = [np.stack(list(run)) for _, run in groupby(images, key=np.shape)]
    for run in runs:
        for start in range(0, len(run), _BATCH):
            yield run[start : start + _BATCH]


def _short(key: str) -> str:
    return sha256_bytes(key.encode())[:32]


def _prune(folder: Path, *, keep: Path) -> None:
    """Remove what was written the longest time ago, until the cache is of CACHE_BYTES."""
    entries = sorted((f for f in folder.iterdir() if f.is_dir()), key=lambda f: -f.stat().st_mtime)
    total = 0
    for entry in entries:
        total += sum(file.stat().st_size for file in entry.iterdir())
        if total > CACHE_BYTES and entry != keep:
            shutil.rmtree(entry, ignore_errors=True)
