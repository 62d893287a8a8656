"""Images of any origin -> images.npy, labels.npy, dataset.json: decoded once, mapped ever after."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ganinfer.errors import ConfigError, DataError, GanError
from ganinfer.files import write_atomic
from gantrain.data.decoding import Done, decode_all, doubts_of_pixels, reason_of
from gantrain.data.labels import doubts, present
from gantrain.data.names import is_litter, listed
from gantrain.data.pictures import FRAMINGS, Colour, Form, Framing, Picture, decode
from gantrain.data.resolution import LEAST, MOST, Resolution, Size, in_words, size_of
from gantrain.data.source import Source
from gantrain.data.sources import open_source
from gantrain.data.sources.trees import Labelling
from gantrain.data.stacking import stack as stack_images
from gantrain.data.toys import TOYS, prepare_points

FORMAT_VERSION = 1
INDEX_VERSION = 2  # of a dataset whose images stay where they are
NOT_SQUARE_VERSION = 3  # has width and height, where others have resolution
INDEX_FILES = ("places.npy", "shards.jsonl")


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made.

    Attributes:
        path: of the dataset.
        num_images, height, width, channels, classes: as they are in it.
        skipped: names of the images that were left out -> the reason.
        warnings: what else may not be as it was meant, in words.
    """

    path: Path
    num_images: int
    height: int
    width: int
    channels: int
    classes: list[str]
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def prepare(
    source: str,
    destination: Path,
    *,
    resolution: Resolution | None = None,
    grayscale: bool = False,
    split: str = "train",
    strict: bool = False,
    stack: bool = False,
    labels: Path | None = None,
    labelled: bool = True,
    framing: Framing = "centre",
    background: str = "white",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Decode a dataset once into arrays that training maps into memory.

    Killed and called again with the same arguments, it goes on from the last thousand images.

    Args:
        source: "digits", a path or a dataset of the Hub (see `gantrain.data.sources`), or "ring8"
            or "grid25", points in the plane (see `gantrain.data.toys`) to which no other argument
            applies.
        destination: folder to make: images.npy, uint8 (N, H, W, C); labels.npy, int64 (N,), if
            the source has classes; dataset.json. The same dataset there is made anew.
        resolution: of all images, in pixels: the side of a square, or (height, width); by default
            all must be of one size already.
        grayscale: convert to one channel.
        split: "train", "test" or "val", where the source has them.
        strict: refuse the whole set for one broken image, instead of skipping it.
        stack: make colour images of three grey ones each, their classes all triples.
        labels: a file that tells the class of each picture (see `gantrain.data.labels`).
        labelled: False leaves all labels out.
        framing: how an image of another shape is met: "centre" and "random" crop it, "pad" gives
            it a border of the background, "squash" changes its shape, "none" skips it.
        background: a colour, as CSS writes it, that lies behind what is transparent.
        overwrite: replace another dataset at `destination`.
        progress: called with (images done, images in all).

    Returns:
        What was made.

    Raises:
        DataError: the source is missing or not understood, sizes differ, an image is broken under
            `strict`, or something else is at `destination`, which is left as it was.
        MissingExtra: a package that reads it is not installed.
    """
    size = asked_size(resolution)
    task: dict[str, Any] = {
        "source": source if is_no_path(source) else str(Path(source).resolve()),
        "split": split,
        "resolution": size,
        "grayscale": grayscale,
        "stacked": 0,
    }
    check_destination(destination, task | {"stacked": stack}, overwrite=overwrite)
    if source in TOYS:
        num_points = prepare_points(source, destination, format_version=FORMAT_VERSION)
        classes = [str(n) for n in range(len(TOYS[source]()[0]))]
        return Prepared(destination, num_points, 1, 1, 2, classes)
    colour = _colour(background)
    images = open_source(source, split, Labelling(file=labels, wanted=labelled))
    stacked = len(images.classes) if stack else 0
    if stack:
        images = stack_images(images)
    if strict and images.skipped:
        name, reason = next(iter(images.skipped.items()))
        raise DataError(f"{name}: broken image ({reason})")
    form = _form(images, size, framing, colour, grayscale)
    task |= {"stacked": stacked, "framing": framing, "background": colour}
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.partial")
    try:
        done, form = decode_all(images, partial, task, form, strict, progress)
        made = _describe(partial, images, done, form, task)
    except (GanError, OSError):
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if destination.exists():
        shutil.rmtree(destination)
    partial.rename(destination)
    return Prepared(destination, **made)


def is_no_path(source: str) -> bool:
    """Is it an embedded set, or one that lies elsewhere?"""
    return "://" in source or source == "digits" or source in TOYS


def check_destination(folder: Path, task: dict[str, Any], *, overwrite: bool = False) -> None:
    """Before a dataset is made there.

    Args:
        folder: where it is to be.
        task: what is asked for, as `prepare` and `index_shards` have it.
        overwrite: another dataset of ours is no hindrance, damaged or not.

    Raises:
        DataError: something else lies there, or, without `overwrite`, another dataset.
    """
    if folder.name in ("", ".."):
        raise DataError(f"{folder}: expected a folder of the dataset's own, as data/mine")
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    names = {name for name in names if not is_litter(name)}
    if not names:
        return
    if not names <= {"images.npy", "labels.npy", "dataset.json", *INDEX_FILES}:
        raise DataError(f"{folder}: exists and is not a dataset of ours; choose another folder")
    if overwrite:
        return
    try:
        found = json.loads((folder / "dataset.json").read_text())
        source, differences = found["source"], _differences(found, task)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise DataError(
            f"{folder}: exists and is not a dataset of ours, or a damaged one; choose another"
            " folder, or replace it with --overwrite"
        ) from None
    if differences:
        raise DataError(
            f"{folder}: holds another dataset, of {source}; {'; '.join(differences)}; choose"
            " another folder, or replace it with --overwrite"
        )


def _differences(found: dict[str, Any], task: dict[str, Any]) -> list[str]:
    """In what a dataset.json is not of this task, in words."""
    side, asked = found.get("resolution"), task["resolution"]
    has = (found.get("height", side), found.get("width", side))
    pairs = {
        "source": (found["source"], task["source"]),
        "split": (found["split"], task["split"]),
        "height and width": (has, asked or has),
        "grey": (found["channels"] == 1, task["grayscale"] or found["channels"] == 1),
        "stacked": (bool(found.get("stacked")), bool(task.get("stacked"))),
    }
    return [f"{name}: it has {a}, asked for {b}" for name, (a, b) in pairs.items() if a != b]


def asked_size(resolution: Resolution | None) -> Size | None:
    """Height and width, if they are asked for.

    Raises:
        DataError: no image has that size.
    """
    if resolution is None:
        return None
    size = size_of(resolution)
    if not LEAST <= min(size) <= max(size) <= MOST:
        raise DataError(f"resolution {in_words(size)}: expected {LEAST} to {MOST} pixels")
    return size


def _form(
    images: Source, size: Size | None, framing: Framing, colour: Colour, grayscale: bool
) -> Form:
    """What all become, as the first readable image tells; grey, until one has colours."""
    if framing not in FRAMINGS:
        raise DataError(f"framing {framing!r}: expected one of {', '.join(FRAMINGS)}")
    first = _first_readable(images, colour)
    height, width = size or first.pixels.shape[:2]
    coloured = first.is_colour or (framing == "pad" and len(set(colour)) > 1)
    return Form(
        height=height,
        width=width,
        channels=3 if coloured and not grayscale else 1,
        framing=framing if size else "none",
        background=colour,
    )


def _colour(background: str) -> Colour:
    from PIL import ImageColor

    try:
        red, green, blue, *_ = ImageColor.getrgb(background)
    except ValueError:
        raise ConfigError(
            f"background {background!r}: no colour; expected a name or #rrggbb, as in CSS"
        ) from None
    return red, green, blue


def _first_readable(images: Source, background: Colour) -> Picture:
    reason = ""
    for index in range(len(images.names)):
        try:
            return decode(images.open(index), background)
        except GanError:
            raise
        except Exception as error:  # whatever a broken image leads to
            reason = reason or reason_of(error)
    raise DataError(
        f"none of the {len(images.names)} images can be read, {images.names[0]} first: {reason}"
    )


def described_size(size: Size) -> dict[str, int]:
    """The keys of dataset.json that tell the size of images."""
    height, width = size
    return {"resolution": height} if height == width else {"height": height, "width": width}


def _describe(
    partial: Path, images: Source, done: Done, form: Form, task: dict[str, Any]
) -> dict[str, Any]:
    """Write labels.npy and dataset.json; what `Prepared` has of them."""
    skipped = {images.names[index]: reason for index, reason in done.skipped}
    num_images = done.done - len(skipped)
    if num_images == 0:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"no image is left: {name}: {reason}")
    digest = hashlib.sha256()
    with (partial / "images.npy").open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    classes, warnings = images.classes, [*images.warnings]
    if images.labels is not None:
        labels = np.delete(images.labels, [index for index, _ in done.skipped])
        if not task["stacked"]:
            counts = np.bincount(labels, minlength=len(classes))
            classes, numbers, lacking = present(classes, counts)
            labels = numbers[labels]
            if lacking:
                warnings.append(f"no classes, as no image of them can be read: {listed(lacking)}")
            warnings += doubts(classes)
        buffer = io.BytesIO()
        np.save(buffer, labels, allow_pickle=False)
        digest.update(buffer.getvalue())
        write_atomic(partial / "labels.npy", buffer.getvalue())
    warnings += doubts_of_pixels(done.notes, done.low, done.high)
    skipped = {**images.skipped, **skipped}
    square = form.width == form.height
    description = {
        "format_version": FORMAT_VERSION if square else NOT_SQUARE_VERSION,
        "num_images": num_images,
        **described_size((form.height, form.width)),
        "channels": form.channels,
        "classes": classes,
        "stacked": task["stacked"],
        "sha256": digest.hexdigest(),
        "source": task["source"],
        "split": task["split"],
        "num_skipped": len(skipped),
        "skipped": skipped,
        "warnings": warnings,
    }
    write_atomic(partial / "dataset.json", (json.dumps(description, indent=2) + "\n").encode())
    (partial / "progress.json").unlink()
    return {
        "num_images": num_images,
        "height": form.height,
        "width": form.width,
        "channels": form.channels,
        "classes": classes,
        "skipped": skipped,
        "warnings": warnings,
    }
