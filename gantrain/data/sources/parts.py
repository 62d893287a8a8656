"""One shard of several: what tar files, Parquet and npz shards come down to."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gantrain.data.pictures import Pixels

BLOCK_BYTES = 4 << 20  # about as much of a shard is read at once

Stored = bytes | Pixels  # an image as a shard has it: a file, or pixels


class Part(NamedTuple):
    """A shard.

    names: of its images, in their order. open: as of a Source.
    labels: a class for each, by number or by name; None without labels.
    classes: the names that numbers stand for, if the shard tells them.
    places: int64 (N, 2), what `stored` finds each by. blocks: int64 (N,), rising: the block that
        each belongs to.
    """

    names: list[str]
    labels: list[int] | list[str] | None
    open: Callable[[int], Stored]
    classes: list[str]
    places: NDArray[np.int64]
    blocks: NDArray[np.int64]


def blocks_of(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which blocks images belong to that begin at these places of a file."""
    return offsets // BLOCK_BYTES
