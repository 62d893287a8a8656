"""Formats of shards: one module each, with `pack` and `write`.

pack(batch) -> part: what a thread can do for a batch ahead of the writing.
write(sink, parts, count): a shard of `count` images, of its parts in their order. The bytes depend
on the batches alone: no dates, no owners.
CHANNELS, where it does not hold images of any number of channels: those that it holds.
ENCODES: True where it holds images as `Batch.encoding` makes files of them.

N images; K classes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.encoding import PNG, Encoding
from ganinfer.drawing.images import Images
from ganinfer.drawing.latents import Seeds


class Batch(NamedTuple):
    """Some images of a shard.

    Attributes:
        seeds: uint64 (N,).
        labels: int64 (N,) in [0, K); None if there are no classes.
        images: uint8 (N, H, W, C).
        encoding: of images as files.
        classes: the names of the labels' numbers.
        truncation: of all of them.
    """

    seeds: Seeds
    labels: NDArray[np.int64] | None
    images: Images
    encoding: Encoding = PNG
    classes: tuple[str, ...] = ()
    truncation: float | None = None
