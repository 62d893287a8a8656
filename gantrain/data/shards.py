"""Shards of images as sources: WebDataset's tar files, Parquet, npz files; ours and others'.

Of a tar only the names and places of its members are held, of the others one group of rows.
"""

import json
import tarfile
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError, missing_extra
from gantrain.data.pictures import IMAGE_SUFFIXES, Pixels, Source, decode, is_image

_BLOCK = 512  # of a tar, which ends with one of zeros


class _Part(NamedTuple):
    """A shard. names, labels: of its images; None without labels. read: index -> pixels."""

    names: list[str]
    labels: list[int] | None
    read: Callable[[int], Pixels]
    classes: list[str]


def shards_in(folder: Path, split: str) -> list[Path]:
    """The shards of a folder, or of its folder `data`, as the Hub has it; those of a split.

    Files whose names begin with that of a split, as in train-00000-of-00002.parquet, are of that
    one; without any such all are "train". An npz is a shard beside the index of ours.

    Raises:
        DataError: beside them are images, or shards of another kind.
    """
    places = [folder, folder / "data"]
    files = [file for place in places for file in sorted(place.glob("*")) if _is_shard(file)]
    if not files:
        return []
    kinds = {file.suffix for file in files}
    kinds |= {file.suffix for place in places for file in place.glob("*") if is_image(file)}
    if len(kinds) > 1:
        raise DataError(
            f"{folder}: found {', '.join(sorted(kinds))} files; expected shards of one kind, and no"
            " images beside them: move them apart"
        )
    named = [file for file in files if file.name.startswith(split)]
    others = any(file.name.startswith(("train", "test", "valid")) for file in files)
    return named if others else files if split == "train" else []


def _is_shard(file: Path) -> bool:
    if file.suffix == ".npz":
        return (file.parent / "shards.json").exists()
    return file.suffix in (".tar", ".parquet")


def shards(files: Sequence[Path], where: str) -> Source:
    """All images of some shards of one kind, in the order of the files.

    Args:
        files: at least one.
        where: what a message calls them all.

    Raises:
        DataError: one is damaged, or holds no images; some have labels and others none.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    read_part = {".tar": _tar, ".parquet": _parquet, ".npz": _npz}[files[0].suffix]
    parts = [read_part(file) for file in files]
    labelled = {part.labels is not None for part in parts if part.names}
    if len(labelled) != 1:
        what = "labels in some shards only" if labelled else "no images"
        raise DataError(f"{where}: found {what}; expected images, with labels in all or in none")
    starts = list(accumulate((len(part.names) for part in parts), initial=0))

    def read(index: int) -> Pixels:
        number = bisect_right(starts, index) - 1
        return parts[number].read(index - starts[number])

    names = [name for part in parts for name in part.names]
    if labelled == {False}:
        return Source(names, [], None, read, list(files))
    labels = np.array([label for part in parts for label in part.labels or ()], np.int64)
    if labels.min() < 0:
        raise DataError(f"{where}: found the label {labels.min()}; expected 0 or more")
    told = next((part.classes for part in parts if part.classes), [])
    classes = told or _classes_of(files[0].parent) or list(map(str, range(labels.max() + 1)))
    if labels.max() >= len(classes):
        raise DataError(f"{where}: label {labels.max()} has no name; found {len(classes)} classes")
    return Source(names, classes, labels, read, list(files))


def _classes_of(folder: Path) -> list[str]:
    """Names that the index of our own shards tells."""
    try:
        classes = json.loads((folder / "shards.json").read_bytes())["classes"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return classes if isinstance(classes, list) and all(isinstance(c, str) for c in classes) else []


def _tar(file: Path) -> _Part:
    """WebDataset: members of one name but for what follows its first point are one sample."""
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    end = 0
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                path = PurePosixPath(member.name)
                key = str(path.parent / path.name.partition(".")[0])
                if not member.isfile():
                    continue
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    if key in images:
                        raise DataError(
                            f"{file}: {member.name}: a second image of the sample {key}; expected"
                            " one"
                        )
                    images[key] = (member.name, member.offset_data, member.size)
                elif path.suffix == ".cls":
                    text = archive.extractfile(member)
                    labels[key] = int(text.read(20) if text else b"")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{file}: cannot be read as a tar ({error})") from None
    except ValueError:
        raise DataError(f"{file}: {member.name}: expected a class number") from None
    with file.open("rb") as opened:
        opened.seek(end)
        if opened.read(_BLOCK) != bytes(_BLOCK):
            raise DataError(f"{file}: cannot be read as a tar: it is cut off; get it again")
    if labels and labels.keys() != images.keys():
        lacking = min(images.keys() ^ labels.keys())
        raise DataError(f"{file}: sample {lacking}: expected an image and a .cls, as others have")
    places = list(images.values())

    def read(index: int) -> Pixels:
        _, offset, size = places[index]
        with file.open("rb") as opened:
            opened.seek(offset)
            return decode(opened.read(size))

    names = [f"{file.name}/{name}" for name, _, _ in places]
    return _Part(names, [labels[key] for key in images] if labels else None, read, [])


def _parquet(file: Path) -> _Part:
    """A column of images: files, alone or beside their paths, as the Hub has them."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise missing_extra("pyarrow", error) from None
    try:
        with pq.ParquetFile(file) as opened:
            schema, groups = opened.schema_arrow, opened.metadata.num_row_groups
            counts = [opened.metadata.row_group(i).num_rows for i in range(groups)]
            image, label, classes = _columns(file, schema)
            labels = opened.read([label])[label].to_pylist() if label else None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({error})") from None
    if labels is not None and None in labels:
        raise DataError(f"{file}: {label}: row {labels.index(None)} has none")
    starts = list(accumulate(counts, initial=0))

    def read(index: int) -> Pixels:
        group = bisect_right(starts, index) - 1
        found = _rows_of(file, group, image)[index - starts[group]]
        data = found["bytes"] if isinstance(found, dict) else found
        if not data:
            raise ValueError("no bytes: the picture lies elsewhere")
        return decode(data)

    return _Part([f"{file.name}[{i}]" for i in range(starts[-1])], labels, read, classes)


@lru_cache(maxsize=1)
def _rows_of(file: Path, group: int, column: str) -> list[Any]:
    """A column of a group of rows; that of the one before is let go."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        found: list[Any] = opened.read_row_group(group, [column])[column].to_pylist()
    return found


def _columns(file: Path, schema: Any) -> tuple[str, str | None, list[str]]:
    """The columns of images and labels, and the names of the classes."""
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = told.get("info", {}).get("features", {})
    kinds = {name: one.get("_type") for name, one in features.items() if isinstance(one, dict)}
    images = [name for name in schema.names if kinds.get(name) == "Image"]
    images = images or [name for name in ("image", "img") if name in schema.names]
    labels = [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    labels = labels or [name for name in ("label",) if name in schema.names]
    if len(images) != 1 or len(labels) > 1:
        raise DataError(
            f"{file}: found the columns {', '.join(schema.names)}; expected one of images, called"
            " image, and at most one of labels, called label"
        )
    if not labels:
        return images[0], None, []
    return images[0], labels[0], list(map(str, features.get(labels[0], {}).get("names", [])))


def _npz(file: Path) -> _Part:
    """An array images (N, H, W) or (N, H, W, C), and labels (N,)."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            labels = archive["labels"].tolist() if "labels" in archive else None
        count, *shape = _shape_of(file)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
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

    return _Part([f"{file.name}[{i}]" for i in range(count)], labels, read, [])


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
