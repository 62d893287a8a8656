"""Images of any origin -> images.npy, labels.npy, dataset.json: decoded once, mapped ever after."""

import hashlib
import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ganinfer.errors import DataError
from ganinfer.files import npy_header, write_atomic
from gantrain.data.pictures import Pixels, Source
from gantrain.data.sources import open_source
from gantrain.data.sources import stack as stack_images
from gantrain.data.toys import TOYS, prepare_points

FORMAT_VERSION = 1
INDEX_VERSION = 2  # of a dataset whose images stay where they are
INDEX_FILES = ("places.npy", "shards.jsonl")
# What Pillow and zipfile raise for files that they cannot decode.
BROKEN = (OSError, ValueError, SyntaxError, zipfile.BadZipFile, zlib.error)

_IMAGES_A_STEP = 1000  # between two notes of how far the work has come


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made. skipped: the names of the broken images that were left out."""

    path: Path
    num_images: int
    resolution: int
    channels: int
    classes: list[str]
    skipped: list[str]


def prepare(
    source: str,
    destination: Path,
    *,
    resolution: int | None = None,
    grayscale: bool = False,
    split: str = "train",
    strict: bool = False,
    stack: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Decode a dataset once into arrays that training maps into memory.

    Killed and called again with the same arguments, it goes on from the last thousand images.

    Args:
        source: "digits", a path (see `gantrain.data.sources`), or "ring8" or "grid25", points in
            the plane (see `gantrain.data.toys`) to which no other argument applies.
        destination: folder to make: images.npy, uint8 (N, H, W, C); labels.npy, int64 (N,), if
            the source has classes; dataset.json. An older dataset there is replaced.
        resolution: images are centre-cropped to a square and resized to this many pixels; by
            default all must be square and of one size already.
        grayscale: convert to one channel.
        split: "train" or "test", where the source has both.
        strict: refuse the whole set for one broken image, instead of skipping it.
        stack: make colour images of three grey ones each, their classes all triples.
        progress: called with (images done, images in all).

    Returns:
        What was made.

    Raises:
        DataError: the source is missing or not understood, sizes differ, or an image is broken
            under `strict`. An older dataset at `destination` is left as it was.
    """
    check_request(destination, resolution)
    if source in TOYS:
        num_points = prepare_points(source, destination, format_version=FORMAT_VERSION)
        classes = [str(n) for n in range(len(TOYS[source]()[0]))]
        return Prepared(destination, num_points, 1, 2, classes, [])
    images = open_source(source, split)
    stacked = len(images.classes) if stack else 0
    if stack:
        images = stack_images(images)
    first = _first_readable(images)
    size = resolution or native_size(first, images.names[0])
    channels = 3 if is_colour(first) and not grayscale else 1
    task = {
        "source": source if source == "digits" else str(Path(source).resolve()),
        "split": split,
        "resolution": resolution,
        "grayscale": grayscale,
        "stacked": stacked,
        "channels": channels,
        "names_sha256": hashlib.sha256("\n".join(images.names).encode()).hexdigest(),
    }
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        try:
            skipped = _decode(images, partial, task, size, resolution, strict, progress)
        except _ColourFoundError:  # the first image was grey and this one is not: begin again
            task["channels"] = channels = 3
            skipped = _decode(images, partial, task, size, resolution, strict, progress)
        num_images = len(images.names) - len(skipped)
        _describe(partial, images, skipped, (num_images, size, size, channels), task)
    except (DataError, OSError):
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if destination.exists():
        shutil.rmtree(destination)
    partial.rename(destination)
    names = [images.names[i] for i in skipped]
    return Prepared(destination, num_images, size, channels, images.classes, names)


def check_request(destination: Path, resolution: int | None) -> None:
    """Raise a DataError if something else lies at the destination, or no image has that size."""
    if destination.exists() and not _is_ours(destination):
        raise DataError(
            f"{destination}: exists and is not a dataset of ours; choose another folder"
        )
    if resolution is not None and not 4 <= resolution <= 4096:
        raise DataError(f"resolution {resolution}: expected 4 to 4096 pixels")


class _ColourFoundError(Exception):
    """A colour image came up in a set that had looked grey."""


def is_colour(image: Pixels) -> bool:
    """Has it three channels?"""
    return image.ndim == 3 and image.shape[2] == 3


def _is_ours(folder: Path) -> bool:
    """Does the folder hold a prepared dataset, and nothing else?"""
    try:
        description = json.loads((folder / "dataset.json").read_text())
        names = {path.name for path in folder.iterdir()}
    except (OSError, ValueError):
        return False
    known = isinstance(description, dict) and {"format_version", "sha256"} <= description.keys()
    return known and names <= {"images.npy", "labels.npy", "dataset.json", *INDEX_FILES}


def _first_readable(images: Source) -> Pixels:
    for index in range(len(images.names)):
        try:
            return images.read(index)
        except BROKEN:
            continue
    raise DataError(f"none of the {len(images.names)} images can be read, {images.names[0]} first")


def native_size(image: Pixels, name: str) -> int:
    """The side of a square image.

    Raises:
        DataError: it is none.
    """
    height, width = int(image.shape[0]), int(image.shape[1])
    if height != width:
        raise DataError(
            f"{name}: {width}x{height} is not square; give --resolution to crop and resize"
        )
    return height


def _decode(
    images: Source,
    partial: Path,
    task: dict[str, Any],
    size: int,
    resolution: int | None,
    strict: bool,
    progress: Callable[[int, int], None] | None,
) -> list[int]:
    """Append every readable image to partial/images.npy; the indices of the broken ones."""
    count, channels = len(images.names), task["channels"]
    state = _resume(partial, task)
    done, skipped = state["done"], state["skipped"]
    image_bytes = size * size * channels
    header = npy_header((0, size, size, channels))
    with (partial / "images.npy").open("r+b" if done else "wb") as file:
        file.write(header)
        file.seek(len(header) + (done - len(skipped)) * image_bytes)
        file.truncate()
        for index in range(done, count):
            try:
                image = images.read(index)
            except BROKEN as error:
                if strict:
                    raise DataError(f"{images.names[index]}: broken image ({error})") from None
                skipped.append(index)
            else:
                if channels == 1 and not task["grayscale"] and is_colour(image):
                    raise _ColourFoundError
                file.write(fit(image, images.names[index], size, channels, resolution).tobytes())
            if (index + 1) % _IMAGES_A_STEP == 0 or index + 1 == count:
                file.flush()
                os.fsync(file.fileno())
                note = json.dumps({"task": task, "done": index + 1, "skipped": skipped})
                write_atomic(partial / "progress.json", note.encode())
                if progress:
                    progress(index + 1, count)
        file.seek(0)
        file.write(npy_header((count - len(skipped), size, size, channels)))
    return list(skipped)


def _resume(partial: Path, task: dict[str, Any]) -> dict[str, Any]:
    """How far an interrupted call with the same task had come; a clean start otherwise."""
    try:
        state: dict[str, Any] = json.loads((partial / "progress.json").read_text())
        if state["task"] == task:
            return state
    except (OSError, ValueError, KeyError):
        pass
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    return {"done": 0, "skipped": []}


def fit(image: Pixels, name: str, size: int, channels: int, resolution: int | None) -> Pixels:
    """Crop, resize and convert one image to (size, size, channels).

    Raises:
        DataError: it has another size, and no resolution was asked for.
    """
    from PIL import Image

    height, width = image.shape[:2]
    if resolution is None and (height, width) != (size, size):
        raise DataError(
            f"{name}: {width}x{height}, and the first image is {size}x{size};"
            " give --resolution to crop and resize them all"
        )
    picture = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if (height, width) != (size, size):
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        box = (left, top, left + side, top + side)
        picture = picture.crop(box).resize((size, size), Image.Resampling.LANCZOS)
    picture = picture.convert("L" if channels == 1 else "RGB")
    return np.asarray(picture).reshape(size, size, channels)


def _describe(
    partial: Path,
    images: Source,
    skipped: list[int],
    shape: tuple[int, int, int, int],
    task: dict[str, Any],
) -> None:
    """Write labels.npy and dataset.json."""
    digest = hashlib.sha256()
    with (partial / "images.npy").open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if images.labels is not None:
        buffer = io.BytesIO()
        np.save(buffer, np.delete(images.labels, skipped), allow_pickle=False)
        digest.update(buffer.getvalue())
        write_atomic(partial / "labels.npy", buffer.getvalue())
    description = {
        "format_version": FORMAT_VERSION,
        "num_images": shape[0],
        "resolution": shape[1],
        "channels": shape[3],
        "classes": images.classes,
        "stacked": task["stacked"],
        "sha256": digest.hexdigest(),
        "source": task["source"],
        "split": task["split"],
        "num_skipped": len(skipped),
    }
    write_atomic(partial / "dataset.json", (json.dumps(description, indent=2) + "\n").encode())
    (partial / "progress.json").unlink()
