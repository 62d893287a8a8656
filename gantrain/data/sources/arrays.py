"""Arrays of pictures: .npy, and .npz of whatever spelling.

- Which array: of the names that say train, test or val those of the split; among them the only
  one that has the shape of images, and the only one that has a number or name for each image.
- Which shape: (N, H, W), (N, H, W, C) or (N, C, H, W), where C is 1, 3 or 4 (with alpha).
- Which range: uint8 as it is; bool 0 and 255; uint16 its upper 8 bits; other whole numbers if they
  lie in 0 to 255. Floats are [-1, 1] if one is negative, else [0, 1] if none is above 1, else
  [0, 255]: found in all images together, never in one.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.data.labels import in_order
from gantrain.data.pictures import Pixels
from gantrain.data.source import Source

_CHANNELS = (1, 3, 4)
_STEP = 1000  # images that are looked at together


def npy(path: Path) -> Source:
    """Images of an .npy file, mapped into memory; they have no labels.

    Raises:
        DataError: it holds something else.
    """
    _check_magic(path, np.lib.format.MAGIC_PREFIX, "an .npy file")
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever a damaged file leads to
        raise DataError(f"{path}: cannot be read as an array without pickles ({error})") from None
    return _of_array(f"{path}", path.name, images, None, [])


def npz(path: Path, split: str) -> Source:
    """Images of an .npz file, and their labels if it has them.

    Raises:
        DataError: it holds something else, or what is what is not clear.
    """
    _check_magic(path, b"PK", "an .npz file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = _of_split(path, archive.files, split)
            arrays = {name: archive[name] for name in names}
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise DataError(f"{path}: cannot be read as an npz without pickles ({error})") from None
    images = [name for name, array in arrays.items() if _is_images(array)]
    found = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items())
    if len(images) != 1:
        raise DataError(
            f"{path}: holds {found or 'nothing'}; expected images (N, H, W), (N, H, W, C) or"
            " (N, C, H, W), one array of them"
        )
    (name,) = images
    labels = [n for n, array in arrays.items() if _is_labels(array, len(arrays[name]))]
    if len(labels) > 1:
        raise DataError(f"{path}: holds {found}; expected one array of labels beside {name}")
    unused = [n for n in arrays if n not in (name, *labels)]
    warnings = [f"left out the arrays {', '.join(unused)}"] if unused else []
    values = arrays[labels[0]].reshape(-1).tolist() if labels else None
    return _of_array(f"{path}: {name}", path.name, arrays[name], values, warnings)


def _check_magic(path: Path, magic: bytes, kind: str) -> None:
    """What begins otherwise NumPy takes for a pickle, and advises to trust it."""
    with path.open("rb") as file:
        if file.read(len(magic)) != magic:
            raise DataError(f"{path}: does not begin as {kind} does; it is damaged, or another")


def _of_split(path: Path, names: list[str], split: str) -> list[str]:
    """The arrays of a split: x_train, train_images, valLabels."""
    splits = {name: re.search("train|test|val", name.lower()) for name in names}
    if not any(splits.values()):
        if split != "train":
            raise DataError(f"split {split!r}: {path} has no splits, but {', '.join(names)}")
        return names
    chosen = [name for name, found in splits.items() if found and found[0] == split]
    if not chosen:
        raise DataError(f"split {split!r}: {path} has only {', '.join(names)}")
    return chosen


def _is_images(array: NDArray[Any]) -> bool:
    many = array.ndim == 3 or (
        array.ndim == 4 and bool({array.shape[1], array.shape[3]} & set(_CHANNELS))
    )
    return many and len(array) > 0 and array.dtype.kind in "biuf"


def _is_labels(array: NDArray[Any], count: int) -> bool:
    return array.shape in ((count,), (count, 1)) and array.dtype.kind in "iuU"


def _of_array(
    where: str, name: str, images: NDArray[Any], values: list[Any] | None, warnings: list[str]
) -> Source:
    if not _is_images(images):
        raise DataError(
            f"{where} is {images.dtype} {images.shape}; expected numbers of shape (N, H, W),"
            " (N, H, W, C) or (N, C, H, W), N >= 1, C 1, 3 or 4"
        )
    if images.ndim == 4 and images.shape[3] not in _CHANNELS:
        images = np.moveaxis(images, 1, 3)
    to_bytes, rule = _scaling(where, images)
    names = [f"{name}[{i}]" for i in range(len(images))]
    classes, labels = ([], None) if values is None else in_order(values)

    def open_one(index: int) -> Pixels:
        return np.ascontiguousarray(to_bytes(images[index]))

    return Source(names, classes, labels, open_one, (), {}, [*warnings, *rule])


def _scaling(
    where: str, images: NDArray[Any]
) -> tuple[Callable[[NDArray[Any]], Pixels], list[str]]:
    """How pixels become uint8, and that in words."""
    if images.dtype == np.uint8:
        return (lambda pixels: pixels), []
    if images.dtype == np.bool_:
        return (lambda pixels: pixels * np.uint8(255)), []
    parts = [images[i : i + _STEP] for i in range(0, len(images), _STEP)]
    low, high = (float(f([f(part) for part in parts])) for f in (np.min, np.max))
    said = f"{where}: {images.dtype} values {low:g} to {high:g}"
    if images.dtype.kind in "iu":
        if 0 <= low <= high <= 255 and images.dtype != np.uint16:
            return (lambda pixels: pixels.astype(np.uint8)), []
        if images.dtype == np.uint16:
            dim = " (less than an eighth of them is used: scale them)" if high < 65536 / 8 else ""
            return (lambda pixels: (pixels >> 8).astype(np.uint8)), [f"{said} are 16 bits{dim}"]
        raise DataError(f"{said}; expected 0 to 255")
    if not (low >= -1 and high <= (1 if low < 0 else 255)):  # a NaN compares as False
        raise DataError(f"{said}; expected [-1, 1], [0, 1] or [0, 255]")
    scale, shift = (127.5, 1.0) if low < 0 else (255.0, 0.0) if high <= 1 else (1.0, 0.0)
    taken = "[-1, 1]" if low < 0 else "[0, 1]" if high <= 1 else "[0, 255]"

    def rounded(pixels: NDArray[Any]) -> Pixels:
        return np.rint((pixels.astype(np.float64) + shift) * scale).astype(np.uint8)

    return rounded, [f"{said} are taken for {taken}"]
