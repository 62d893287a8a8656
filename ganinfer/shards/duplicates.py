"""Images that look alike: a perceptual hash of each, and which hashes several images share.

Zauner: Implementation and benchmarking of perceptual image hash functions, 2010, the hash by DCT.
Of the image in grey, averaged to 32x32, the 8x8 lowest frequencies, without those that are constant
along a side; a bit says whether one lies above their median. All numbers are integers below 2**53,
so a hash is the same on every machine.

N images; a row of hashes is (seed, hash), uint64 (N, 2).
"""

import functools
import io
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.images import Images
from ganinfer.files import sha256_bytes
from ganinfer.formats import Batch
from ganinfer.shards.folder import Folder
from ganinfer.shards.records import RECORDS, Duplicates, Group, Shard

Hashes = NDArray[np.uint64]
Floats = NDArray[np.float64]

_SIDE, _LOWEST = 32, 8
# Thousandths of each channel in grey, by the number of channels: ITU-R BT.601, without opacity.
_GREY = {1: [1000.0], 2: [500.0, 500.0], 3: [299.0, 587.0, 114.0], 4: [299.0, 587.0, 114.0, 0.0]}
_SCALE = 2**10  # of the cosines
_PIXELS = 1 << 18  # that are float64 at once
_AT_ONCE = 1 << 26  # rows that are sorted in memory, 16 bytes each
_HEADER, _ROW = 128, 16  # bytes of an .npy file, and of each of its rows
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd: it stirs a hash's bits upwards
_SHOWN = 5  # groups, and seeds of each


def hashed(batch: Batch) -> Hashes:
    """Seeds and hashes of a batch."""
    return np.stack([batch.seeds, perceptual_hash(batch.images)], axis=1)


def perceptual_hash(images: Images) -> NDArray[np.uint64]:
    """Hashes (N,) of images uint8 (N, H, W, C)."""
    step = max(1, _PIXELS // math.prod(images.shape[1:3]))
    parts = [_hashes(images[start : start + step]) for start in range(0, len(images), step)]
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _hashes(images: Images) -> NDArray[np.uint64]:
    shares = np.array(_GREY[images.shape[-1]])
    grey = np.zeros(images.shape[:3])
    for channel, share in enumerate(shares):
        grey += images[..., channel] * share
    height, width = images.shape[1:3]
    sums = _overlaps(height) @ grey @ _overlaps(width).T
    small = np.floor(sums * (256 / (1000 * height * width)))  # below 2**16
    lowest = (_cosines() @ small @ _cosines().T).reshape(-1, _LOWEST * _LOWEST)
    bits = lowest > np.median(lowest, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def write_hashes(place: Folder, name: str, hashes: Sequence[Hashes]) -> str:
    """The hashes of a shard's batches beside its record; the file's sha256."""
    buffer = io.BytesIO()
    rows = np.concatenate(hashes).astype("<u8")
    np.lib.format.write_array(buffer, rows, allow_pickle=False)
    place.write(_file_of(name), buffer.getvalue())
    return sha256_bytes(buffer.getvalue())


def hashes_are_there(
    place: Folder, size: Callable[[str], int | None], shard: Shard, *, check: str
) -> bool:
    """Whether a shard's hashes lie beside its record, by their size or their sha256."""
    name = _file_of(shard.name)
    if size(name) != _HEADER + _ROW * shard.count:
        return False
    return check == "size" or place.sha256(name) == shard.hashes_sha256


def find_duplicates(
    place: Folder, shards: Sequence[Shard], *, at_once: int = _AT_ONCE
) -> Duplicates:
    """Which hashes several images share, of shards whose hashes are all there.

    They are all read once for each `at_once` images, whose hashes are sorted together: some 60
    bytes an image, so 4 GB at most by default.

    Args:
        place: the shards' folder.
        shards: of one request.
        at_once: images whose hashes are in memory together.
    """
    images = groups = 0
    largest: list[Group] = []
    parts = -(-sum(shard.count for shard in shards) // at_once)
    for part in range(parts):
        rows = np.concatenate([_part_of(place, shard, part, parts) for shard in shards])
        rows = rows[np.lexsort((rows[:, 0], rows[:, 1]))]
        starts = np.flatnonzero(np.diff(rows[:, 1], prepend=~rows[:1, 1]))
        counts = np.diff(starts, append=len(rows))
        starts, counts = starts[counts > 1], counts[counts > 1]
        images, groups = images + int(counts.sum()), groups + len(counts)
        best = np.argsort(-counts, kind="stable")[:_SHOWN]
        largest += [_group(rows[starts[i] : starts[i] + counts[i]]) for i in best]
    largest.sort(key=lambda group: (-group.count, group.hash))
    return Duplicates(images=images, groups=groups, largest=largest[:_SHOWN])


def _file_of(name: str) -> str:
    return f"{RECORDS}/{name}.hashes.npy"


def _part_of(place: Folder, shard: Shard, part: int, parts: int) -> Hashes:
    """A shard's rows, of the hashes that belong to a part of all."""
    data = place.read(_file_of(shard.name))
    assert data is not None
    rows: Hashes = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    if parts == 1:
        return rows
    here: Hashes = rows[(rows[:, 1] * _SPREAD >> np.uint64(32)) % np.uint64(parts) == part]
    return here


def _group(rows: Hashes) -> Group:
    return Group(hash=f"{int(rows[0, 1]):016x}", count=len(rows), seeds=rows[:_SHOWN, 0].tolist())


@functools.cache
def _overlaps(length: int) -> Floats:
    """How much of each pixel lies in each of 32 equal parts of a side, in 32ths of a pixel."""
    parts, pixels = np.arange(_SIDE)[:, None], np.arange(length)
    ends = np.minimum((parts + 1) * length, (pixels + 1) * _SIDE)
    starts = np.maximum(parts * length, pixels * _SIDE)
    overlaps: Floats = np.maximum(ends - starts, 0).astype(np.float64)
    return overlaps


@functools.cache
def _cosines() -> Floats:
    """Rows 1 to 8 of the DCT-II of 32 numbers, as integers."""
    rows, places = np.arange(1, _LOWEST + 1)[:, None], np.arange(_SIDE)
    cosines: Floats = np.rint(_SCALE * np.cos(np.pi * (2 * places + 1) * rows / (2 * _SIDE)))
    return cosines
