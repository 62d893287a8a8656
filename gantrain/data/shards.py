"""Shards of images as sources: WebDataset's tar files, Parquet, npz files; ours and others'.

Of a shard only the names and places of its images are held, of Parquet also one group of rows.
"""

import json
import struct
import tarfile
import zipfile
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError, missing_extra
from gantrain.data.pictures import IMAGE_SUFFIXES, Pixels, Source, decode, is_image

BLOCK_BYTES = 4 << 20  # about as much of a shard is read at once
_BLOCK = 512  # of a tar, which ends with one of zeros

Stored = bytes | Pixels  # an image as a shard has it: a file, or pixels


class Part(NamedTuple):
    """A shard.

    names, labels: of its images, in their order; None without labels. places: int64 (N, 2), what
    `stored` finds them by. blocks: int64 (N,), rising: the block that an image belongs to. classes:
    their names, if it tells them.
    """

    names: list[str]
    labels: list[int] | None
    places: NDArray[np.int64]
    blocks: NDArray[np.int64]
    classes: list[str]


def shard_files(path: Path, split: str = "train") -> list[Path]:
    """The shards that a path means: itself, or those of a folder; none if it is something else."""
    if path.is_dir():
        return shards_in(path, split)
    return [path] if path.suffix in (".tar", ".parquet") and path.is_file() else []


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
    parts = [open_shard(file) for file in files]
    labelled = {part.labels is not None for part in parts if part.names}
    if len(labelled) != 1:
        what = "labels in some shards only" if labelled else "no images"
        raise DataError(f"{where}: found {what}; expected images, with labels in all or in none")
    starts = list(accumulate((len(part.names) for part in parts), initial=0))

    def read(index: int) -> Pixels:
        number = bisect_right(starts, index) - 1
        place = parts[number].places[index - starts[number]]
        return pixels_of(stored(files[number], place[None])[0])

    names = [name for part in parts for name in part.names]
    if labelled == {False}:
        return Source(names, [], None, read, list(files))
    labels = np.array([label for part in parts for label in part.labels or ()], np.int64)
    told = next((part.classes for part in parts if part.classes), [])
    classes = class_names(labels, told, files[0].parent, where)
    return Source(names, classes, labels, read, list(files))


def class_names(labels: NDArray[np.int64], told: list[str], folder: Path, where: str) -> list[str]:
    """The names that a shard told, or the index in the folder of our own; or numbers.

    Raises:
        DataError: a label (N,) has none.
    """
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        raise DataError(f"{where}: found the label {lowest}; expected 0 or more")
    classes = told or _classes_of(folder) or list(map(str, range(highest + 1)))
    if highest >= len(classes):
        raise DataError(f"{where}: label {highest} has no name; found {len(classes)} classes")
    return classes


def open_shard(file: Path) -> Part:
    """What is in a shard; no image is read.

    Raises:
        DataError: it is damaged, or none.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    return {".tar": _tar, ".parquet": _parquet, ".npz": _npz}[file.suffix](file)


def stored(file: Path, places: NDArray[np.int64]) -> list[Stored]:
    """Images of a shard, as they lie there, by their places (n, 2).

    Raises:
        OSError, ValueError: they cannot be read.
    """
    if file.suffix == ".npz":
        return list(_pixels_in(file, places[:, 1]))
    if file.suffix == ".tar":
        return _read_at(file, places.tolist())
    rows = [_rows_of(file, group)[row] for group, row in places.tolist()]
    return [(row["bytes"] if isinstance(row, dict) else row) or b"" for row in rows]


def _read_at(file: Path, places: Iterable[tuple[int, int]]) -> list[Stored]:
    """Pieces of a file: where each begins, and how many bytes it has."""
    found: list[Stored] = []
    with file.open("rb") as opened:
        for offset, size in places:
            opened.seek(offset)
            found.append(opened.read(size))
    return found


def pixels_of(image: Stored) -> Pixels:
    """An image of a shard, decoded.

    Raises:
        OSError, ValueError: it is broken.
    """
    if isinstance(image, bytes):
        if not image:
            raise ValueError("there is no picture, only its name")
        return decode(image)
    return image


def _classes_of(folder: Path) -> list[str]:
    """Names that the index of our own shards tells."""
    try:
        classes = json.loads((folder / "shards.json").read_bytes())["classes"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return classes if isinstance(classes, list) and all(isinstance(c, str) for c in classes) else []


def _tar(file: Path) -> Part:
    """WebDataset: members of one name but for what follows its first point are one sample."""
    images: dict[str, str] = {}
    found: list[tuple[int, int]] = []
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
                    images[key] = f"{file.name}/{member.name}"
                    found.append((member.offset_data, member.size))
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
    places = np.array(found, np.int64).reshape(-1, 2)
    classes = [labels[key] for key in images] if labels else None
    return Part(list(images.values()), classes, places, places[:, 0] // BLOCK_BYTES, [])


def _parquet(file: Path) -> Part:
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
            _, label, classes = _columns(file, schema)
            labels = opened.read([label])[label].to_pylist() if label else None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({error})") from None
    if labels is not None and None in labels:
        raise DataError(f"{file}: {label}: row {labels.index(None)} has none")
    places = np.array([(i, row) for i in range(groups) for row in range(counts[i])], np.int64)
    places = places.reshape(-1, 2)
    names = [f"{file.name}[{i}]" for i in range(len(places))]
    return Part(names, labels, places, places[:, 0], classes)


@lru_cache(maxsize=1)
def _rows_of(file: Path, group: int) -> list[Any]:
    """The images of a group of rows; those of the one before are let go."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        column, _, _ = _columns(file, opened.schema_arrow)
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


def _npz(file: Path) -> Part:
    """An array images (N, H, W) or (N, H, W, C), and labels (N,)."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            labels = archive["labels"].tolist() if "labels" in archive else None
        (count, *shape), place = _layout_of(file)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{file}: expected an npz with images ({error})") from None
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise DataError(
            f"{file}: images is {(count, *shape)}; expected (N, H, W) or (N, H, W, 1 or 3)"
        )
    if labels is not None and len(labels) != count:
        raise DataError(f"{file}: {len(labels)} labels for {count} images")
    rows = np.arange(count)
    # What is compressed is read as a whole.
    blocks = 0 * rows if place is None else rows * int(np.prod(shape)) // BLOCK_BYTES
    names = [f"{file.name}[{i}]" for i in range(count)]
    return Part(names, labels, np.stack([blocks, rows], axis=1), blocks, [])


def _pixels_in(file: Path, rows: NDArray[np.int64]) -> Pixels:
    """Images (n, H, W) or (n, H, W, 3) of an npz."""
    (_, *shape), place = _layout_of(file)
    if place is None:
        images = _images_of(file)[rows]
    else:
        size = int(np.prod(shape))
        read = _read_at(file, [(place + size * row, size) for row in rows.tolist()])
        images = np.stack([np.frombuffer(one, np.uint8).reshape(shape) for one in read])
    return images[..., 0] if images.ndim == 4 and images.shape[3] == 1 else images


@lru_cache(maxsize=1)
def _images_of(file: Path) -> Pixels:
    """All images of one npz shard; those of the one before are let go."""
    with np.load(file, allow_pickle=False) as archive:
        found: Pixels = archive["images"]
    return found


@lru_cache(maxsize=1)
def _layout_of(file: Path) -> tuple[tuple[int, ...], int | None]:
    """The shape of images, and the place in the file where their pixels lie, if they do."""
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo("images.npy")
        with archive.open(entry) as member:
            np.lib.format.read_magic(member)
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(member)
            header = member.tell()
    if dtype != np.uint8:
        raise ValueError(f"images is {dtype}, and not uint8")
    if entry.compress_type != zipfile.ZIP_STORED or fortran_order:
        return tuple(shape), None
    with file.open("rb") as opened:  # a member stands behind its header, name and extra field
        opened.seek(entry.header_offset + 26)
        behind = 30 + sum(struct.unpack("<HH", opened.read(4)))
    return tuple(shape), entry.header_offset + behind + header
