"""Shards of images as sources: WebDataset's tar files, Parquet, npz files; ours and others'.

Of a tar only the names and places of its members are held, of the others one group of rows.
"""

import json
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.data.labels import in_order
from gantrain.data.names import NaturalKey, is_litter, is_picture, natural
from gantrain.data.pictures import Pixels
from gantrain.data.source import Source
from gantrain.data.sources.parquet import parquet
from gantrain.data.sources.parts import Part
from gantrain.data.sources.tar import ENDINGS, webdataset


def shards_in(folder: Path, split: str) -> list[Path]:
    """The shards of a folder, or of its folder `data`, as the Hub has it; those of a split.

    Files whose names begin with that of a split, as in train-00000-of-00002.parquet, are of that
    one; without any such all are "train". An npz is a shard beside the index of ours.

    Raises:
        DataError: beside them are images, or shards of another kind; or none are of this split.
    """
    places = [folder, folder / "data"]
    inside = [file for place in places for file in sorted(place.glob("*"), key=_order)]
    files = [file for file in inside if not is_litter(file.name) and _is_shard(file)]
    if not files:
        return []
    kinds = {file.suffix.lower() for file in files}
    kinds |= {file.suffix.lower() for file in inside if is_picture(file.name)}
    if len(kinds) > 1:
        raise DataError(
            f"{folder}: found {', '.join(sorted(kinds))} files; expected shards of one kind, and no"
            " images beside them: move them apart"
        )
    splits = sorted({split_of for file in files if (split_of := _split_of(file))})
    if not splits:
        if split != "train":
            raise DataError(f"split {split!r}: {folder} has no splits; leave --split out")
        return files
    if split not in splits:
        raise DataError(f"split {split!r}: {folder} has only {', '.join(splits)}")
    return [file for file in files if _split_of(file) == split]


def _order(file: Path) -> NaturalKey:
    return natural(file.name)


def _split_of(file: Path) -> str | None:
    return next((split for split in ("train", "test", "val") if file.name.startswith(split)), None)


def _is_shard(file: Path) -> bool:
    if file.suffix == ".npz":
        return (file.parent / "shards.json").exists()
    return file.name.lower().endswith((*ENDINGS, ".parquet"))


def shards(files: Sequence[Path], where: str) -> Source:
    """All images of some shards of one kind, in the order of the files.

    Args:
        files: at least one.
        where: what a message calls them all.

    Raises:
        DataError: one is damaged, or holds no images; some have labels and others none.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    kinds: dict[str, Callable[[Path], Part]] = {".parquet": parquet, ".npz": _npz}
    read_part = kinds.get(files[0].suffix.lower(), webdataset)
    parts = [read_part(file) for file in files]
    labelled = {part.labels is not None for part in parts if part.names}
    if len(labelled) != 1:
        what = "labels in some shards only" if labelled else "no images"
        raise DataError(f"{where}: found {what}; expected images, with labels in all or in none")
    starts = list(accumulate((len(part.names) for part in parts), initial=0))

    def open_one(index: int) -> bytes | Pixels:
        number = bisect_right(starts, index) - 1
        return parts[number].open(index - starts[number])

    names = [name for part in parts for name in part.names]
    if labelled == {False}:
        return Source(names, [], None, open_one, list(files))
    values = [label for part in parts for label in part.labels or ()]
    told = next((part.classes for part in parts if part.classes), _classes_of(files[0].parent))
    classes, labels = _numbered(where, values, told)
    return Source(names, classes, labels, open_one, list(files))


def _numbered(
    where: str, values: Sequence[int | str], told: list[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the classes, and labels; the order of the names that shards tell is kept."""
    strange = next((value for value in values if not isinstance(value, int | str)), None)
    if strange is not None:
        raise DataError(f"{where}: found the label {strange}; expected whole numbers or names")
    numbers = [value for value in values if isinstance(value, int)]
    if numbers and min(numbers) < 0:
        raise DataError(
            f"{where}: found the label {min(numbers)}; expected 0 or more, or give --no-labels"
        )
    if not told or len(numbers) < len(values):
        return in_order(values)
    if max(numbers) >= len(told):
        raise DataError(f"{where}: label {max(numbers)} has no name; found {len(told)} classes")
    return told, np.array(numbers, np.int64)


def _classes_of(folder: Path) -> list[str]:
    """Names that the index of our own shards tells."""
    try:
        classes = json.loads((folder / "shards.json").read_bytes())["classes"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return classes if isinstance(classes, list) and all(isinstance(c, str) for c in classes) else []


def _npz(file: Path) -> Part:
    """An array images (N, H, W) or (N, H, W, C), and labels (N,)."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            labels = archive["labels"].tolist() if "labels" in archive else None
        count, *shape = _shape_of(file)
    except Exception as error:  # whatever a damaged file leads to
        raise DataError(f"{file}: expected an npz with images ({error})") from None
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise DataError(
            f"{file}: images is {(count, *shape)}; expected (N, H, W) or (N, H, W, 1 or 3)"
        )
    if labels is not None and len(labels) != count:
        raise DataError(f"{file}: {len(labels)} labels for {count} images")

    def read(index: int) -> Pixels:
        image: Pixels = _images_of(file)[index]
        return image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image

    return Part([f"{file.name}[{i}]" for i in range(count)], labels, read, [])


@lru_cache(maxsize=1)
def _images_of(file: Path) -> NDArray[np.uint8]:
    """All images of one npz shard; those of the one before are let go."""
    with np.load(file, allow_pickle=False) as archive:
        found: NDArray[np.uint8] = archive["images"]
    return found


def _shape_of(file: Path) -> tuple[int, ...]:
    """Of images, without reading them."""
    with zipfile.ZipFile(file) as archive, archive.open("images.npy") as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    if dtype != np.uint8:
        raise ValueError(f"images is {dtype}, and not uint8")
    return tuple(shape)
