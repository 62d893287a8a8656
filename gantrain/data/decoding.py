"""The pictures of a source, one by one, into images.npy; killed, it goes on from a note."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ganinfer.errors import DataError, GanError
from ganinfer.files import npy_header, write_atomic
from gantrain.data.pictures import Form, Picture, decode, fit
from gantrain.data.resolution import Size, in_words
from gantrain.data.source import Source

_IMAGES_A_STEP = 1000  # between two notes of how far the work has come
_RULES = 3  # how pictures become pixels; an interrupted call goes on only by the same rules


class _ColourFoundError(Exception):
    """A colour image came up in a set that had looked grey."""


Notes = dict[str, tuple[int, str]]  # what was done to images -> to how many, and to which first


class Done(NamedTuple):
    """How far it has come.

    done: images that were looked at. skipped: [index, reason] of the broken ones. notes: what was
    done to images. low, high: the least and greatest value of all pixels.
    """

    done: int
    skipped: list[tuple[int, str]]
    notes: Notes
    low: int
    high: int


def decode_all(
    images: Source,
    partial: Path,
    task: dict[str, Any],
    form: Form,
    strict: bool,
    progress: Callable[[int, int], None] | None,
) -> tuple[Done, Form]:
    """Append every readable image to partial/images.npy.

    Args:
        images: all of them.
        partial: folder that is made, or goes on if it has a note of the same task.
        task: what was asked for; JSON can say it.
        form: what each becomes.
        strict: refuse all for one broken image.
        progress: called with (images done, images in all).

    Returns:
        What was done, and the form; if it was grey only because no colours had been seen, it may
        be of colours now.

    Raises:
        DataError: an image is broken under `strict`, or of another size and none was asked for.
        OSError: the disk is full.
    """
    try:
        return _decode(images, partial, task, form, strict, progress), form
    except _ColourFoundError:  # begin again
        form = dataclasses.replace(form, channels=3)
        return _decode(images, partial, task, form, strict, progress), form


def _decode(
    images: Source,
    partial: Path,
    task: dict[str, Any],
    form: Form,
    strict: bool,
    progress: Callable[[int, int], None] | None,
) -> Done:
    count, shape = len(images.names), (form.height, form.width, form.channels)
    names_sha256 = hashlib.sha256("\n".join(images.names).encode(errors="surrogateescape"))
    task = {
        **task,
        "channels": form.channels,
        "rules": _RULES,
        "names_sha256": names_sha256.hexdigest(),
    }
    start, skipped, notes, low, high = _resume(partial, task)
    header = npy_header((0, *shape))
    with (partial / "images.npy").open("r+b" if start else "wb") as file:
        file.write(header)
        file.seek(len(header) + (start - len(skipped)) * int(np.prod(shape)))
        file.truncate()
        for index in range(start, count):
            name = images.names[index]
            try:
                picture = decode(images.open(index), form.background)
                if task["resolution"] is None:
                    check_size(picture, (form.height, form.width), name)
                if form.channels == 1 and picture.is_colour and not task["grayscale"]:
                    raise _ColourFoundError
                picture = fit(picture, form, name)
            except (GanError, _ColourFoundError):
                raise
            except Exception as error:  # whatever a broken image leads to
                if strict:
                    raise DataError(f"{name}: broken image ({reason_of(error)})") from None
                skipped.append((index, reason_of(error)))
            else:
                file.write(picture.pixels.tobytes())
                low, high = min(low, picture.pixels.min()), max(high, picture.pixels.max())
                noted(notes, picture.notes, name)
            if (index + 1) % _IMAGES_A_STEP == 0 or index + 1 == count:
                file.flush()
                os.fsync(file.fileno())
                done = Done(index + 1, skipped, notes, int(low), int(high))
                note_of_it = json.dumps({"task": task, "state": done})
                write_atomic(partial / "progress.json", note_of_it.encode())
                if progress:
                    progress(index + 1, count)
        file.seek(0)
        file.write(npy_header((count - len(skipped), *shape)))
    return Done(count, skipped, notes, int(low), int(high))


def check_size(picture: Picture, size: Size, name: str) -> None:
    """Raise a DataError if the picture has not this size, that of the first."""
    height, width = picture.pixels.shape[:2]
    if (height, width) != size:
        raise DataError(
            f"{name}: {in_words((height, width))} (height x width), and the first image is"
            f" {in_words(size)}; give --resolution to crop and resize them all"
        )


def _resume(partial: Path, task: dict[str, Any]) -> Done:
    """How far an interrupted call with the same task had come; a clean start otherwise."""
    try:
        found = json.loads((partial / "progress.json").read_text())
        if found["task"] == json.loads(json.dumps(task)):
            return Done(*found["state"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    return Done(0, [], {}, 255, 0)


def noted(notes: Notes, more: Iterable[str], example: str, number: int = 1) -> None:
    """Add to the notes what was done to so many images, of which the example is the first."""
    for note in more:
        count, first = notes.get(note, (0, example))
        notes[note] = (count + number, first)


def doubts_of_pixels(notes: Notes, low: int, high: int) -> list[str]:
    """What may not be as it was meant, in words: what was done, and a range that is hardly used."""
    found = [
        f"{note}: {number:,}, {example}" + (" first" if number > 1 else "")
        for note, (number, example) in notes.items()
    ]
    if high - low < 256 / 8:
        found.append(
            f"all pixels lie between {low} and {high} of 0 to 255, less than an eighth of"
            " the range; are the pictures meant to be so?"
        )
    return found


def reason_of(error: Exception) -> str:
    """What was wrong with an image, in one line."""
    said = " ".join(str(error).split())
    if "cannot identify image file" in said:  # which names an object in memory
        return "not an image, or damaged at its beginning"
    if isinstance(error, OSError) and error.strerror:
        said = error.strerror
    return said or type(error).__name__
