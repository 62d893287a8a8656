"""CIFAR-10 and CIFAR-100: the binary version, and the version for Python, which is pickled.

Binary: label byte(s), then 3072 bytes, channel first. Pickled: a dict of data and labels.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.data.pickled_arrays import read_arrays
from gantrain.data.pictures import Pixels
from gantrain.data.source import Source

_PIXELS = 3 * 32 * 32


class _Version(NamedTuple):
    """One way that one of the two is published; labels: of a pickle."""

    first: str
    files: dict[str, str]
    names: str
    labels: str
    label_bytes: int
    num_classes: int


_VERSIONS = (
    _Version(
        "data_batch_1.bin",
        {"train": "data_batch_*.bin", "test": "test_batch.bin"},
        *("batches.meta.txt", "", 1, 10),
    ),
    _Version(  # each label coarse, then fine
        "train.bin",
        {"train": "train.bin", "test": "test.bin"},
        *("fine_label_names.txt", "", 2, 100),
    ),
    _Version(
        "data_batch_1",
        {"train": "data_batch_[1-5]", "test": "test_batch"},
        *("batches.meta", "labels", 0, 10),
    ),
    _Version("train", {"train": "train", "test": "test"}, *("meta", "fine_labels", 0, 100)),
)


def is_cifar(path: Path) -> bool:
    """Does a folder hold one of the two?"""
    return _version(path) is not None


def _version(path: Path) -> _Version | None:
    return next((version for version in _VERSIONS if (path / version.first).is_file()), None)


def cifar(path: Path, split: str) -> Source:
    """The images of one split; of CIFAR-100 with the fine labels.

    Raises:
        DataError: a file is not there, damaged, or asks for more than arrays.
    """
    version = _version(path)
    assert version is not None
    if split not in version.files:
        raise DataError(f"split {split!r}: CIFAR has train and test")
    files = sorted(path.glob(version.files[split]))
    if not files:
        raise DataError(f"{path}: no {version.files[split]}; found {version.first}")
    read = _pickled if version.labels else _binary
    batches = [read(file, version) for file in files]
    images = np.concatenate([rows for rows, _ in batches]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in batches])
    known = _class_names(path / version.names, version)
    if labels.min() < 0 or labels.max() >= len(known):
        raise DataError(f"{path}: labels {labels.min()} to {labels.max()} of {len(known)} classes")
    names = [f"{path.name}[{i}]" for i in range(len(images))]
    return Source(names, known, labels, lambda i: images[i].transpose(1, 2, 0))


def _binary(file: Path, version: _Version) -> tuple[Pixels, NDArray[np.int64]]:
    raw, row = np.fromfile(file, np.uint8), version.label_bytes + _PIXELS
    if raw.size == 0 or raw.size % row:
        raise DataError(f"{file}: {raw.size} bytes is no multiple of {row}; re-download")
    table = raw.reshape(-1, row)
    return table[:, version.label_bytes :], table[:, version.label_bytes - 1].astype(np.int64)


def _pickled(file: Path, version: _Version) -> tuple[Pixels, NDArray[np.int64]]:
    held = _by_text(read_arrays(file))
    images, labels = held.get("data"), held.get(version.labels)
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        labels = np.array(labels, np.int64)
    if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray):
        found = ", ".join(held) or "no dict"
        raise DataError(f"{file}: found {found}; expected data and {version.labels}")
    right = images.dtype == np.uint8 and images.shape == (len(labels), _PIXELS) and len(labels) > 0
    if not right or labels.ndim != 1:
        raise DataError(
            f"{file}: data is {images.dtype} {images.shape} for {labels.shape} labels; expected"
            f" uint8 (N, {_PIXELS}), N >= 1"
        )
    return images, labels.astype(np.int64)


def _class_names(file: Path, version: _Version) -> list[str]:
    """As the file beside the images tells them, else their numbers."""
    known: list[Any] = []
    if file.is_file():
        if version.labels:
            key = "label_names" if version.num_classes == 10 else "fine_label_names"
            told = _by_text(read_arrays(file)).get(key)
            known = [_text(name) for name in told] if isinstance(told, list) else []
        else:
            known = file.read_text().split()
    if len(known) == version.num_classes:
        return known
    return [str(n) for n in range(version.num_classes)]


def _by_text(held: Any) -> dict[str, Any]:
    """A dict whose keys are text or bytes, as the two Pythons write them."""
    return {_text(key): value for key, value in held.items()} if isinstance(held, dict) else {}


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
