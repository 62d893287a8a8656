"""CIFAR-10 and CIFAR-100, the binary version: label byte(s), then 3072 bytes, channel first."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.data.pictures import Pixels
from gantrain.data.source import Source

_TEN = {"train": "data_batch_*.bin", "test": "test_batch.bin"}
_HUNDRED = {"train": "train.bin", "test": "test.bin"}


def is_cifar(path: Path) -> bool:
    """Does a folder hold one of the two?"""
    return (path / "data_batch_1.bin").exists() or (path / "train.bin").exists()


def cifar(path: Path, split: str) -> Source:
    """The images of one split; of CIFAR-100 with the fine labels.

    Raises:
        DataError: a file is not there or damaged.
    """
    ten = (path / "data_batch_1.bin").exists()
    patterns = _TEN if ten else _HUNDRED
    if split not in patterns:
        raise DataError(f"split {split!r}: CIFAR has train and test")
    names_file = path / ("batches.meta.txt" if ten else "fine_label_names.txt")
    label_bytes = 1 if ten else 2  # CIFAR-100: coarse, then fine
    files = sorted(path.glob(patterns[split]))
    if not files:
        raise DataError(f"{path}: no {patterns[split]}; expected the files of the binary version")
    records = []
    for file in files:
        raw = np.fromfile(file, np.uint8)
        if raw.size == 0 or raw.size % (label_bytes + 3072):
            raise DataError(
                f"{file}: {raw.size} bytes is no multiple of {label_bytes + 3072}; re-download"
            )
        records.append(raw.reshape(-1, label_bytes + 3072))
    table = np.concatenate(records)
    known = names_file.read_text().split() if names_file.exists() else []
    return _source(
        path, table[:, label_bytes:], table[:, label_bytes - 1], known, 10 if ten else 100
    )


def _source(
    path: Path, rows: Pixels, labels: NDArray[np.uint8], known: list[str], num_classes: int
) -> Source:
    """Rows uint8 (N, 3072), labels (N,), names of the classes if they are known."""
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    classes = known if len(known) == num_classes else [str(n) for n in range(num_classes)]
    names = [f"{path.name}[{i}]" for i in range(len(images))]
    return Source(names, classes, labels.astype(np.int64), lambda i: images[i])
