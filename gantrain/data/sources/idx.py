"""IDX files, plain or gzip: MNIST's four files and its kin."""

import gzip
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from ganinfer.errors import DataError
from gantrain.data.labels import in_order
from gantrain.data.pictures import Pixels
from gantrain.data.source import Source

PATTERN = "*-images?idx3-ubyte*"
_SPLIT_NAMES = {"train": "train", "test": "t10k"}


def idx_folder(path: Path, split: str) -> Source:
    """The images and labels of one split.

    Raises:
        DataError: it is not there, or a file is damaged.
    """
    if split not in _SPLIT_NAMES:
        raise DataError(f"split {split!r}: IDX files have train and test")
    pattern = _SPLIT_NAMES[split] + PATTERN[1:]
    found = sorted(p for p in path.glob(pattern) if not re.search(r"\.(md5|sha256)$", p.name))
    if not found:
        names = sorted(p.name for p in path.iterdir())
        raise DataError(f"{path}: no file {pattern}; found {names}")
    return idx(found[0])


def idx(path: Path) -> Source:
    """Images, with the labels that lie beside them.

    Raises:
        DataError: a file is damaged.
    """
    images = _read_idx(path, ndim=3)
    plain = path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    candidates = (path.with_name(plain), path.with_name(f"{plain}.gz"))
    labels_path = next((candidate for candidate in candidates if candidate.exists()), None)
    names = [f"{path.name}[{i}]" for i in range(len(images))]
    if labels_path is None:
        return Source(names, [], None, lambda i: images[i])
    values = _read_idx(labels_path, ndim=1).tolist()
    if len(values) != len(images):
        raise DataError(
            f"{labels_path}: {len(values)} labels for the {len(images)} images of {path}"
        )
    return Source(names, *in_order(values), lambda i: images[i])


def _read_idx(path: Path, *, ndim: int) -> Pixels:
    """uint8 array of an IDX file: magic 00 00 08 ndim, big-endian sizes, data."""
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    header = 4 + 4 * ndim
    if data[:4] != bytes([0, 0, 8, ndim]) or len(data) < header:
        raise DataError(
            f"{path}: no IDX file of {ndim}-dimensional uint8; found {data[:4].hex(' ')}"
        )
    shape = struct.unpack(f">{ndim}I", data[4:header])
    if len(data) - header != int(np.prod(shape)):
        raise DataError(f"{path}: {len(data) - header} bytes of data, its header says {shape}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
