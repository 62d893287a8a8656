"""A dataset whose images stay in their shards: each is looked at once, and its place written down.

The folder has dataset.json and labels.npy as any prepared one. In the place of images.npy it has
places.npy, int64 (N, 2), and shards.jsonl, a line a shard.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError, GanError
from ganinfer.files import npy_header, only_writer, write_atomic
from ganinfer.host.limits import usable_cpus
from gantrain.data.decoding import check_size, in_words
from gantrain.data.labels import doubts, present
from gantrain.data.names import listed
from gantrain.data.pictures import decode
from gantrain.data.prepare import (
    INDEX_VERSION,
    Prepared,
    check_destination,
    native_size,
    size_of,
)
from gantrain.data.sources.parts import Part, Stored
from gantrain.data.sources.shards import classes_of, numbered, open_shard, shard_files, stored

_DTYPE = "<i8"
_LABELS_A_STEP = 1 << 20


class Block(NamedTuple):
    """Images of a shard that are read at once: of their files' bytes, and the sha256 of these."""

    num_images: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A line of the index.

    name: of the file, in the folder of the shards. size, mtime_ns: that it had. side: of its first
    image, if it has any. colour, labelled: have its images colours, and labels? values: the labels
    that no shard before it has. classes: that it tells. skipped: names of broken images -> the
    reason.
    """

    name: str
    size: int
    mtime_ns: int
    side: int | None
    colour: bool
    labelled: bool
    values: list[int | str]
    classes: list[str]
    skipped: dict[str, str]
    blocks: list[Block]

    @property
    def num_images(self) -> int:
        """Of all blocks."""
        return sum(block.num_images for block in self.blocks)

    def is_as_it_was(self, folder: Path) -> bool:
        """Has the file its old size and date?"""
        try:
            status = (folder / self.name).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


def index_shards(
    source: Path,
    destination: Path,
    *,
    resolution: int | None = None,
    grayscale: bool = False,
    split: str = "train",
    strict: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Prepare shards without copying their images; `Dataset` gives the same as after `prepare`.

    Killed and called again with the same arguments, it goes on with the shard that it was at.

    Args:
        source: a tar or Parquet file, or a folder of shards, which stays where it is.
        destination, resolution, grayscale, split, strict, overwrite: as of `prepare`.
        progress: called with (shards done, shards in all).

    Returns:
        What was made.

    Raises:
        DataError: there are no shards, one is damaged, sizes differ, or an image is broken under
            `strict`. An older dataset at `destination` is left as it was.
        GanError: another process is at it.
    """
    size_of(resolution)
    source = source.resolve()
    files = shard_files(source, split)
    if not files:
        raise DataError(
            f"{source}: found no shards; expected a folder of tar or Parquet files, one of these"
            " (a tar with .cls files), or what gan sample wrote; no tar may be compressed. Other"
            " images are copied: leave --stream out"
        )
    task = {
        "source": str(source),
        "folder": str(source if source.is_dir() else source.parent),
        "split": split,
        "resolution": resolution,
        "grayscale": grayscale,
        "strict": strict,
    }
    check_destination(destination, task, overwrite=overwrite)
    partial = destination.with_name(f".{destination.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    with only_writer(partial), ThreadPoolExecutor(usable_cpus()) as pool:
        index = _Index(partial, task, pool)
        index.resume(files)
        for file in files[index.num_shards :]:
            index.add(file)
            if progress:
                progress(index.num_shards, len(files))
        made = index.describe(destination)
        (partial / "lock").unlink(missing_ok=True)
        if destination.exists():
            shutil.rmtree(destination)
        partial.rename(destination)
    return made


def read_shards(folder: Path) -> Iterator[Shard]:
    """The lines of an index.

    Raises:
        OSError, ValueError, TypeError: there is none, or it is damaged.
    """
    with (folder / "shards.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            found = json.loads(line)
            yield Shard(**found | {"blocks": [Block(*block) for block in found["blocks"]]})


def is_current(folder: Path, files: list[Path]) -> bool:
    """Is the folder an index of exactly these shards, as they are now?"""
    try:
        base = Path(json.loads((folder / "dataset.json").read_bytes())["folder"])
        shards = list(read_shards(folder))
    except (OSError, ValueError, TypeError, LookupError):
        return False
    same = [base / shard.name for shard in shards] == [file.resolve() for file in files]
    return same and all(shard.is_as_it_was(base) for shard in shards)


class _Index:
    """An index that grows by a shard at a time."""

    def __init__(self, folder: Path, task: dict[str, Any], pool: ThreadPoolExecutor) -> None:
        self._folder, self._task, self._pool = folder, task, pool
        self._base = Path(task["folder"])
        self._side: int | None = task["resolution"]  # or else that of the first image
        self._colour, self._labelled = False, False
        self._classes: list[str] = []
        self._values: dict[int | str, int] = {}  # label -> its number in values.npy
        self._skipped: dict[str, str] = {}
        self.num_shards = self._num_images = 0

    def resume(self, files: list[Path]) -> None:
        """Take what an interrupted call with the same task had done of the same files."""
        lines = []
        with suppress(OSError, ValueError, TypeError, LookupError):  # the last line may be torn
            if json.loads((self._folder / "task.json").read_bytes()) == self._task:
                for shard, file in zip(read_shards(self._folder), files, strict=False):
                    if file != self._base / shard.name or not shard.is_as_it_was(self._base):
                        break
                    self._take(shard)
                    lines.append(_line(shard))
        if not lines:  # what lies there is of something else
            for leftover in self._folder.iterdir():
                if leftover.name != "lock":
                    leftover.unlink()
        write_atomic(self._folder / "task.json", json.dumps(self._task).encode())
        write_atomic(self._folder / "shards.jsonl", "".join(lines).encode())
        self._begin("places.npy", (self._num_images, 2))
        self._begin("values.npy", (self._num_images if self._labelled else 0,))

    def _take(self, shard: Shard) -> None:
        self.num_shards += 1
        self._num_images += shard.num_images
        self._skipped |= shard.skipped
        self._values |= {value: len(self._values) + i for i, value in enumerate(shard.values)}
        self._side = self._side or shard.side
        self._colour |= shard.colour
        self._labelled |= shard.labelled and bool(shard.blocks)
        self._classes = self._classes or shard.classes

    def add(self, file: Path) -> None:
        """Look at a shard."""
        status, part = file.stat(), open_shard(file)
        labelled = part.labels is not None
        if part.names and self._num_images and labelled != self._labelled:
            raise DataError(
                f"{self._task['source']}: found labels in some shards only, and {file.name} has"
                f" {'some' if labelled else 'none'}; expected labels in all or in none"
            )
        values = self._new_values(part)
        blocks: list[Block] = []
        whole = np.zeros(len(part.names), bool)
        skipped: dict[str, str] = {}
        colour = False
        for rows in _blocks(part.blocks):
            images = _read(file, part.places[rows])
            names = [part.names[row] for row in rows]
            self._side = self._side or _side_of(images, names)
            for row, found in zip(rows, self._pool.map(self._look, images, names), strict=True):
                if isinstance(found, str):
                    skipped[part.names[row]] = found
                else:
                    whole[row], colour = True, colour or found
            if kept := [image for image, good in zip(images, whole[rows], strict=True) if good]:
                blocks.append(_block_of(kept))
        self._append("places.npy", part.places[whole])
        if part.labels is not None:
            known = self._values | {v: len(self._values) + i for i, v in enumerate(values)}
            numbers = np.array([known[value] for value in part.labels], np.int64)
            self._append("values.npy", numbers[whole])
        name = file.relative_to(self._base).as_posix()
        about = (name, status.st_size, status.st_mtime_ns, self._side, colour, labelled)
        shard = Shard(*about, values, part.classes, skipped, blocks)
        self._append("shards.jsonl", _line(shard).encode())
        self._take(shard)

    def describe(self, destination: Path) -> Prepared:
        """Write dataset.json, and remove what is no longer needed."""
        count, side, source = self._num_images, self._side, self._task["source"]
        if not count or side is None:
            raise DataError(f"{source}: found no images that can be read; expected some")
        channels = 3 if self._colour and not self._task["grayscale"] else 1
        digest = hashlib.sha256(f"{side} {channels}\n".encode())
        for block in (block for shard in read_shards(self._folder) for block in shard.blocks):
            digest.update(f"{block.num_images} {block.num_bytes} {block.sha256}\n".encode())
        self._begin("places.npy", (count, 2))
        classes, lacking = self._write_labels(count, digest.update) if self._labelled else ([], [])
        warnings = doubts(classes)
        if lacking:
            warnings.append(f"no classes, as no image of them can be read: {listed(lacking)}")
        description = {
            "format_version": INDEX_VERSION,
            "num_images": count,
            "resolution": side,
            "channels": channels,
            "classes": classes,
            "sha256": digest.hexdigest(),
            "source": source,
            "folder": self._task["folder"],
            "split": self._task["split"],
            "num_skipped": len(self._skipped),
            "skipped": self._skipped,
            "warnings": warnings,
        }
        text = json.dumps(description, indent=2) + "\n"
        write_atomic(self._folder / "dataset.json", text.encode())
        (self._folder / "task.json").unlink()
        (self._folder / "values.npy").unlink()
        return Prepared(destination, count, side, side, channels, classes, self._skipped, warnings)

    def _new_values(self, part: Part) -> list[int | str]:
        """Labels that no shard before has; what cannot be a class is refused here already."""
        if not part.labels:
            return []
        labels: Sequence[int | str] = part.labels
        numbered(self._task["source"], labels, self._classes or part.classes)
        return [value for value in dict.fromkeys(labels) if value not in self._values]

    def _write_labels(
        self, count: int, seen: Callable[[bytes], None]
    ) -> tuple[list[str], list[str]]:
        """Write labels.npy, whose bytes are seen; the classes, and those without an image."""
        (self._folder / "labels.npy").unlink(missing_ok=True)
        for name in ("values.npy", "labels.npy"):
            self._begin(name, (count,))
        values = np.load(self._folder / "values.npy", mmap_mode="r")
        labels = np.load(self._folder / "labels.npy", mmap_mode="r+")
        first = self._base / next(read_shards(self._folder)).name
        told = self._classes or classes_of(first.parent)
        classes, numbers = numbered(self._task["source"], list(self._values), told)
        steps = [slice(i, i + _LABELS_A_STEP) for i in range(0, count, _LABELS_A_STEP)]
        size = len(classes)
        counts = [np.bincount(numbers[values[step]], minlength=size) for step in steps]
        classes, places, lacking = present(classes, np.sum(counts, axis=0))
        for step in steps:
            labels[step] = places[numbers[values[step]]]
            seen(labels[step].tobytes())
        labels.flush()
        return classes, lacking

    def _look(self, image: Stored, name: str) -> bool | str:
        """Has the image colours? Why it is broken, if it is."""
        try:
            picture = decode(image)
        except GanError:
            raise
        except Exception as error:  # whatever a broken image leads to
            if self._task["strict"]:
                raise DataError(f"{name}: broken image ({in_words(error)})") from None
            return in_words(error)
        if self._task["resolution"] is None:
            assert self._side is not None  # an image before, or this one, could be read
            check_size(picture, (self._side, self._side), name)
        return picture.is_colour

    def _begin(self, name: str, shape: tuple[int, ...]) -> None:
        """An array with this header, cut to its size; what is there of it stays."""
        file = self._folder / name
        with file.open("r+b" if file.exists() else "wb") as opened:
            header = npy_header(shape, _DTYPE)
            opened.write(header)
            opened.truncate(len(header) + np.dtype(_DTYPE).itemsize * int(np.prod(shape)))

    def _append(self, name: str, data: bytes | NDArray[np.int64]) -> None:
        with (self._folder / name).open("ab") as file:
            file.write(data if isinstance(data, bytes) else data.astype(_DTYPE).tobytes())
            file.flush()
            os.fsync(file.fileno())


def _line(shard: Shard) -> str:
    return json.dumps(asdict(shard)) + "\n"


def _blocks(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each block; numbers (N,) are rising."""
    if not len(numbers):
        return []
    return np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers)) + 1)


def _read(file: Path, places: NDArray[np.int64]) -> Sequence[Stored]:
    try:
        return stored(file, places)
    except GanError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise DataError(f"{file}: cannot be read ({error}); get it again") from None


def _block_of(images: list[Stored]) -> Block:
    digest, num_bytes = hashlib.sha256(), 0
    for image in images:
        data = image if isinstance(image, bytes) else np.ascontiguousarray(image).tobytes()
        digest.update(data)
        num_bytes += len(data)
    return Block(len(images), num_bytes, digest.hexdigest())


def _side_of(images: Sequence[Stored], names: list[str]) -> int | None:
    """Of the first image that can be read."""
    for image, name in zip(images, names, strict=True):
        try:
            picture = decode(image)
        except GanError:
            raise
        except Exception:  # it will be told of
            continue
        return native_size(picture, name)[0]
    return None
