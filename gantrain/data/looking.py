"""A shard is looked at: each image is decoded once, to know what it is and if it can be read."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError, GanError
from gantrain.data.decoding import Notes, check_size, noted, reason_of
from gantrain.data.index import Block
from gantrain.data.pictures import Form, decode, fit
from gantrain.data.resolution import Size
from gantrain.data.sources.parts import Part, Stored
from gantrain.data.sources.shards import stored


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of the images.

    size: height and width; None takes that of the first. grayscale, strict: as of `prepare`.
    """

    size: Size | None
    grayscale: bool
    strict: bool


@dataclass(frozen=True)
class Seen:
    """What a shard holds.

    size: of the first image that could be read, or as it was wished. whole: bool (N,), those that
    can be read. blocks: of these. skipped: names of the others -> the reason. colour: has one of
    them colours? notes, low, high: as of `Done`.
    """

    size: Size | None
    whole: NDArray[np.bool_]
    blocks: list[Block]
    skipped: dict[str, str]
    colour: bool
    notes: Notes
    low: int
    high: int


@dataclass(frozen=True)
class _Look:
    """One image: has it colours, what was done to it, its least and its greatest value."""

    colour: bool
    notes: tuple[str, ...]
    low: int
    high: int


def look_at(
    file: Path, part: Part, wish: Wish, size: Size | None, pool: ThreadPoolExecutor
) -> Seen:
    """Decode all images of a shard.

    Args:
        file: the shard. part: what is in it.
        wish: what is asked of all images.
        size: of them, as far as it is known.
        pool: threads that decode.

    Raises:
        DataError: the shard is damaged, sizes differ and none was asked for, or an image is broken
            under `strict`.
    """
    whole, blocks = np.zeros(len(part.names), bool), list[Block]()
    skipped, notes, looks = dict[str, str](), Notes(), list[_Look]()
    for rows in _blocks(part.blocks):
        images = _read(file, part.places[rows])
        names = [part.names[row] for row in rows]
        size = size or _first_size(images)
        look = partial(_look, wish=wish, size=size)
        for row, found in zip(rows, pool.map(look, images, names), strict=True):
            if isinstance(found, str):
                skipped[part.names[row]] = found
            else:
                whole[row] = True
                looks.append(found)
                noted(notes, found.notes, part.names[row])
        if kept := [image for image, good in zip(images, whole[rows], strict=True) if good]:
            blocks.append(_block_of(kept))
    return Seen(
        size,
        whole,
        blocks,
        skipped,
        any(found.colour for found in looks),
        notes,
        min((found.low for found in looks), default=255),
        max((found.high for found in looks), default=0),
    )


def _look(image: Stored, name: str, *, wish: Wish, size: Size | None) -> _Look | str:
    """What is known of an image; why it is broken, if it is."""
    try:
        picture = decode(image)
        assert size is not None  # an image before, or this one, could be read
        if wish.size is None:
            check_size(picture, size, name)
        height, width = size
        form = Form(height=height, width=width, channels=1 if wish.grayscale else 3)
        made = fit(picture, form, name)
    except GanError:
        raise
    except Exception as error:  # whatever a broken image leads to
        if wish.strict:
            raise DataError(f"{name}: broken image ({reason_of(error)})") from None
        return reason_of(error)
    return _Look(picture.is_colour, made.notes, int(made.pixels.min()), int(made.pixels.max()))


def _first_size(images: Sequence[Stored]) -> Size | None:
    """Of the first image that can be read."""
    for image in images:
        try:
            height, width = decode(image).pixels.shape[:2]
        except GanError:
            raise
        except Exception:  # it will be told of
            continue
        return height, width
    return None


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
