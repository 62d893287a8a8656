"""WebDataset: a tar file with, for each image, <seed>.png and its class number in <seed>.cls.

Or <seed>.webp, or <seed>.jpg.
"""

import itertools
import tarfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.latents import Seeds
from ganinfer.files import Sink
from ganinfer.formats import Batch

CHANNELS = (1, 3, 4)
ENCODES = True

_BLOCK = 512
_NAME_DIGITS, _SIZE, _CHECKSUM = 20, slice(124, 135), slice(148, 156)  # places in a header


def pack(batch: Batch) -> bytes:
    """The members of a batch, one after the other."""
    pictures = batch.encoding.encode(batch.images)
    members = _members(batch.seeds, f".{batch.encoding.suffix}", pictures)
    if batch.labels is None:
        return b"".join(members)
    labels = _members(batch.seeds, ".cls", [b"%d" % label for label in batch.labels.tolist()])
    pairs = zip(members, labels, strict=True)
    return b"".join(itertools.chain.from_iterable(pairs))


def write(sink: Sink, parts: Iterator[bytes], count: int) -> None:  # noqa: ARG001
    """A tar file; it need not know how many images there will be."""
    for part in parts:
        sink.write(part)
    sink.write(bytes(2 * _BLOCK))


def _members(seeds: Seeds, suffix: str, files: list[bytes]) -> list[bytes]:
    """Files by their seeds' names: all headers at once, as a call of tarfile takes for a few."""
    headers = np.tile(np.frombuffer(_header(suffix), np.uint8), (len(files), 1))
    headers[:, :_NAME_DIGITS] = _digits(seeds, 10, _NAME_DIGITS)
    headers[:, _SIZE] = _digits(np.array([len(file) for file in files], np.uint64), 8, 11)
    headers[:, _CHECKSUM] = ord(" ")  # the checksum counts its own eight bytes as blanks
    sums = headers.sum(axis=1, dtype=np.uint64)
    headers[:, _CHECKSUM.start : _CHECKSUM.start + 6] = _digits(sums, 8, 6)
    headers[:, _CHECKSUM.start + 6] = 0
    packed = headers.tobytes()
    return [
        packed[n * _BLOCK : (n + 1) * _BLOCK] + file + bytes(-len(file) % _BLOCK)
        for n, file in enumerate(files)
    ]


def _header(suffix: str) -> bytes:
    """Of a file whose name ends so, without a date or an owner."""
    entry = tarfile.TarInfo("0" * _NAME_DIGITS + suffix)
    return entry.tobuf(format=tarfile.USTAR_FORMAT)


def _digits(values: NDArray[np.uint64], base: int, width: int) -> NDArray[np.uint8]:
    """Numbers (N,) as text, uint8 (N, width)."""
    found = np.empty((len(values), width), np.uint8)
    for place in reversed(range(width)):
        values, found[:, place] = np.divmod(values, np.uint64(base))
    return found + np.uint8(ord("0"))
