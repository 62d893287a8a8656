"""Shards of images as sources: WebDataset's tar files, Parquet, npz files; ours and others'.

Of a shard only the names and places of its images are held, of Parquet also one group of rows.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.data.labels import in_order
from gantrain.data.names import NaturalKey, is_litter, is_picture, natural
from gantrain.data.source import Source
from gantrain.data.sources.npz_shards import npz_shard, read_npz
from gantrain.data.sources.parquet import parquet, read_parquet
from gantrain.data.sources.parts import Part, Stored
from gantrain.data.sources.tar import ENDINGS, is_shard, read_tar, webdataset


def shard_files(path: Path, split: str = "train", *, labelled: bool = True) -> list[Path]:
    """The shards that a path means, whose images can be read where they lie; else none.

    Args:
        path: a folder of shards, a Parquet file, or a tar with .cls files or without any classes;
            other tars are trees of pictures, and compressed ones are unpacked first.
        split: of a folder.
        labelled: False takes any tar, whose classes are not wanted.

    Raises:
        DataError: the folder has images beside its shards, or shards of several kinds.
    """
    if path.is_dir():
        splits = _splits_of(path)
        files = splits.get(split, splits.get("", []) if split == "train" else [])
    else:
        kind = path.suffix.lower() if path.is_file() else ""
        known = kind == ".parquet" or (kind == ".tar" and (not labelled or is_shard(path)))
        files = [path] if known else []
    return [] if any(file.suffix.lower() not in _READ for file in files) else files


def shards_in(folder: Path, split: str) -> list[Path]:
    """The shards of a split in a folder, or in its folder `data`, as the Hub has it; none if it
    has none of any.

    Files whose names begin with that of a split, as in train-00000-of-00002.parquet, are of that
    one; without any such all are "train". An npz is a shard beside the index of ours.

    Raises:
        DataError: beside them are images, or shards of another kind; or none are of this split.
    """
    splits = _splits_of(folder)
    if "" in splits and split != "train":
        raise DataError(f"split {split!r}: {folder} has no splits; leave --split out")
    if splits and "" not in splits and split not in splits:
        raise DataError(f"split {split!r}: {folder} has only {', '.join(sorted(splits))}")
    return splits.get("" if "" in splits else split, [])


def _splits_of(folder: Path) -> dict[str, list[Path]]:
    """The shards of each split; "" if none is named."""
    places = [folder, folder / "data"]
    inside = [file for place in places for file in sorted(place.glob("*"), key=_order)]
    files = [file for file in inside if not is_litter(file.name) and _is_shard(file)]
    kinds = {file.suffix.lower() for file in files}
    kinds |= {file.suffix.lower() for file in inside if files and is_picture(file.name)}
    if len(kinds) > 1:
        raise DataError(
            f"{folder}: found {', '.join(sorted(kinds))} files; expected shards of one kind, and no"
            " images beside them: move them apart"
        )
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file), []).append(file)
    return {split: splits[split] for split in splits if split or len(splits) == 1}


def _order(file: Path) -> NaturalKey:
    return natural(file.name)


def _split_of(file: Path) -> str:
    return next((split for split in ("train", "test", "val") if file.name.startswith(split)), "")


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
    parts = [open_shard(file) for file in files]
    labelled = {part.labels is not None for part in parts if part.names}
    if len(labelled) != 1:
        what = "labels in some shards only" if labelled else "no images"
        raise DataError(f"{where}: found {what}; expected images, with labels in all or in none")
    starts = list(accumulate((len(part.names) for part in parts), initial=0))

    def open_one(index: int) -> Stored:
        number = bisect_right(starts, index) - 1
        return parts[number].open(index - starts[number])

    names = [name for part in parts for name in part.names]
    if labelled == {False}:
        return Source(names, [], None, open_one, list(files))
    values = [label for part in parts for label in part.labels or ()]
    told = next((part.classes for part in parts if part.classes), classes_of(files[0].parent))
    classes, labels = numbered(where, values, told)
    return Source(names, classes, labels, open_one, list(files))


def open_shard(file: Path) -> Part:
    """What is in a shard; no image is read.

    Raises:
        DataError: it is damaged, or none.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    kinds: dict[str, Callable[[Path], Part]] = {".parquet": parquet, ".npz": npz_shard}
    return kinds.get(file.suffix.lower(), webdataset)(file)


_READ: dict[str, Callable[[Path, NDArray[np.int64]], Sequence[Stored]]] = {
    ".tar": read_tar,
    ".parquet": read_parquet,
    ".npz": read_npz,
}


def stored(file: Path, places: NDArray[np.int64]) -> Sequence[Stored]:
    """Images of a shard, as they lie there, by their places (n, 2).

    Raises:
        Exception: they cannot be read, by whatever is raised.
    """
    return _READ[file.suffix.lower()](file, places)


def numbered(
    where: str, values: Sequence[int | str], told: list[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the classes, and labels; the order of the names that shards tell is kept.

    Raises:
        DataError: a label is neither a number nor a name, or a number has none.
    """
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


def classes_of(folder: Path) -> list[str]:
    """Names that the index of our own shards tells."""
    try:
        classes = json.loads((folder / "shards.json").read_bytes())["classes"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return classes if isinstance(classes, list) and all(isinstance(c, str) for c in classes) else []
