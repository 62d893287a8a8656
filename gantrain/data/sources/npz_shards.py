"""The npz shards of `gan sample`: images (N, H, W) or (N, H, W, C), and labels (N,).

What lies there uncompressed is read in pieces, and what is compressed as a whole.
"""

import struct
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.data.pictures import Pixels
from gantrain.data.sources.parts import Part, blocks_of


def npz_shard(file: Path) -> Part:
    """The images of a shard; none is read.

    Raises:
        DataError: it is damaged, or holds something else.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            labels = archive["labels"].tolist() if "labels" in archive else None
        (count, *shape), start = _layout_of(file)
    except Exception as error:  # whatever a damaged file leads to
        raise DataError(f"{file}: expected an npz with images ({error})") from None
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3)):
        raise DataError(
            f"{file}: images is {(count, *shape)}; expected (N, H, W) or (N, H, W, 1 or 3)"
        )
    if labels is not None and len(labels) != count:
        raise DataError(f"{file}: {len(labels)} labels for {count} images")
    rows = np.arange(count)
    blocks = 0 * rows if start is None else blocks_of(rows * int(np.prod(shape)))
    places = np.stack([blocks, rows], axis=1)

    def open_one(index: int) -> Pixels:
        return read_npz(file, places[index : index + 1])[0]

    names = [f"{file.name}[{i}]" for i in range(count)]
    return Part(names, labels, open_one, [], places, blocks)


def read_npz(file: Path, places: NDArray[np.int64]) -> list[Pixels]:
    """The images (H, W, 1 or 3) or (H, W) at these places."""
    (_, *shape), start = _layout_of(file)
    if start is None:
        return list(_images_of(file)[places[:, 1]])
    size, found = int(np.prod(shape)), []
    with file.open("rb") as opened:
        for row in places[:, 1].tolist():
            opened.seek(start + size * row)
            found.append(np.frombuffer(opened.read(size), np.uint8).reshape(shape))
    return found


@lru_cache(maxsize=1)
def _images_of(file: Path) -> Pixels:
    """All images of one shard; those of the one before are let go."""
    with np.load(file, allow_pickle=False) as archive:
        found: Pixels = archive["images"]
    return found


@lru_cache(maxsize=1)
def _layout_of(file: Path) -> tuple[tuple[int, ...], int | None]:
    """The shape of images, and the place in the file where their pixels begin, if they do."""
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
