"""A dataset whose images stay in their shards: each is looked at once, and its place written down.

The folder has dataset.json and labels.npy as any prepared one. In the place of images.npy it has
places.npy, int64 (N, 2), and shards.jsonl, a line a shard.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from ganinfer.files import npy_header, only_writer, write_atomic
from ganinfer.host.limits import usable_cpus
from gantrain.data.decoding import Notes, doubts_of_pixels, noted
from gantrain.data.index import Shard, read_shards
from gantrain.data.labels import doubts, present
from gantrain.data.looking import Wish, look_at
from gantrain.data.names import listed
from gantrain.data.prepare import (
    INDEX_VERSION,
    Prepared,
    asked_size,
    check_destination,
    described_size,
)
from gantrain.data.resolution import Resolution, resolution_of
from gantrain.data.sources.parts import Part
from gantrain.data.sources.shards import classes_of, numbered, open_shard, shard_files

_DTYPE = "<i8"
_LABELS_A_STEP = 1 << 20


def index_shards(
    source: Path,
    destination: Path,
    *,
    resolution: Resolution | None = None,
    grayscale: bool = False,
    split: str = "train",
    strict: bool = False,
    labelled: bool = True,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Prepare shards without copying their images; `Dataset` gives the same as after `prepare`.

    Killed and called again with the same arguments, it goes on with the shard that it was at.

    Args:
        source: a tar or Parquet file, or a folder of shards, which stays where it is.
        destination, resolution, grayscale, split, strict, labelled, overwrite: as of `prepare`.
        progress: called with (shards done, shards in all).

    Returns:
        What was made.

    Raises:
        DataError: there are no shards, one is damaged, sizes differ, or an image is broken under
            `strict`. An older dataset at `destination` is left as it was.
        GanError: another process is at it.
    """
    size = asked_size(resolution)
    source = source.resolve()
    files = shard_files(source, split, labelled=labelled)
    if not files:
        raise DataError(
            f"{source}: found no shards; expected a folder of tar or Parquet files, one of these"
            " (a tar with .cls files, without classes, or with --no-labels), or what gan sample"
            " wrote; no tar may be compressed. Other images are copied: leave --stream out"
        )
    task = {
        "source": str(source),
        "folder": str(source if source.is_dir() else source.parent),
        "split": split,
        "resolution": size,
        "grayscale": grayscale,
        "strict": strict,
        "labelled": labelled,
    }
    check_destination(destination, task, overwrite=overwrite)
    partial = destination.with_name(f".{destination.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    wish = Wish(size=size, grayscale=grayscale, strict=strict)
    with only_writer(partial), ThreadPoolExecutor(usable_cpus()) as pool:
        index = _Index(partial, task, wish, pool)
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


class _Index:
    """An index that grows by a shard at a time."""

    def __init__(
        self, folder: Path, task: dict[str, Any], wish: Wish, pool: ThreadPoolExecutor
    ) -> None:
        self._folder, self._task, self._wish, self._pool = folder, task, wish, pool
        self._base = Path(task["folder"])
        self._size = wish.size  # or else that of the first image
        self._colour, self._labelled = False, False
        self._classes: list[str] = []
        self._values: dict[int | str, int] = {}  # label -> its number in values.npy
        self._skipped: dict[str, str] = {}
        self._notes, self._low, self._high = Notes(), 255, 0
        self.num_shards = self._num_images = 0

    def resume(self, files: list[Path]) -> None:
        """Take what an interrupted call with the same task had done of the same files."""
        lines = []
        with suppress(OSError, ValueError, TypeError, LookupError):  # the last line may be torn
            task = json.loads((self._folder / "task.json").read_bytes())
            if task == json.loads(json.dumps(self._task)):
                for shard, file in zip(read_shards(self._folder), files, strict=False):
                    if file != self._base / shard.name or not shard.is_as_it_was(self._base):
                        break
                    self._take(shard)
                    lines.append(shard.line)
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
        self._size = self._size or shard.shape
        self._low, self._high = min(self._low, shard.low), max(self._high, shard.high)
        for note, (number, example) in shard.notes.items():
            noted(self._notes, [note], example, number)
        self._colour |= shard.colour
        self._labelled |= shard.labelled and bool(shard.blocks)
        self._classes = self._classes or shard.classes

    def add(self, file: Path) -> None:
        """Look at a shard."""
        status, part = file.stat(), open_shard(file)
        if not self._task["labelled"]:
            part = part._replace(labels=None)
        labelled = part.labels is not None
        if part.names and self._num_images and labelled != self._labelled:
            raise DataError(
                f"{self._task['source']}: found labels in some shards only, and {file.name} has"
                f" {'some' if labelled else 'none'}; expected labels in all or in none"
            )
        values = self._new_values(part)
        seen = look_at(file, part, self._wish, self._size, self._pool)
        self._append("places.npy", part.places[seen.whole])
        if part.labels is not None:
            known = self._values | {v: len(self._values) + i for i, v in enumerate(values)}
            numbers = np.array([known[value] for value in part.labels], np.int64)
            self._append("values.npy", numbers[seen.whole])
        shard = Shard(
            name=file.relative_to(self._base).as_posix(),
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            shape=seen.size,
            colour=seen.colour,
            labelled=labelled,
            values=values,
            classes=part.classes,
            skipped=seen.skipped,
            notes=seen.notes,
            low=seen.low,
            high=seen.high,
            blocks=seen.blocks,
        )
        self._append("shards.jsonl", shard.line.encode())
        self._take(shard)

    def describe(self, destination: Path) -> Prepared:
        """Write dataset.json, and remove what is no longer needed."""
        count, size, source = self._num_images, self._size, self._task["source"]
        if not count or size is None:
            raise DataError(f"{source}: found no images that can be read; expected some")
        channels = 3 if self._colour and not self._task["grayscale"] else 1
        digest = hashlib.sha256(f"{resolution_of(size)} {channels}\n".encode())
        for block in (block for shard in read_shards(self._folder) for block in shard.blocks):
            digest.update(f"{block.num_images} {block.num_bytes} {block.sha256}\n".encode())
        self._begin("places.npy", (count, 2))
        classes, lacking = self._write_labels(count, digest.update) if self._labelled else ([], [])
        warnings = doubts(classes)
        if lacking:
            warnings.append(f"no classes, as no image of them can be read: {listed(lacking)}")
        warnings += doubts_of_pixels(self._notes, self._low, self._high)
        description = {
            "format_version": INDEX_VERSION,
            "num_images": count,
            **described_size(size),
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
        return Prepared(destination, count, *size, channels, classes, self._skipped, warnings)

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
