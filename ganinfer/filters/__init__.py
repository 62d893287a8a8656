"""Filters of images on their way into shards: one module each, with `open`.

open(sampler, *, options) -> Filter: ready to look at images of that sampler, or a `RequestError`.
A command line gives the options `least`, the number behind `>=` in classifier>=0.9, and
`classifier`, the path of a file; a filter has those of the two that it takes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganinfer.formats import Batch


class Filter(NamedTuple):
    """What decides which images are kept.

    Attributes:
        words: what it keeps, for people: "confidence of 0.9 or more".
        keeps: bool (N,) of a batch of N images; of each by its seed, label and pixels alone, so
            that it does not matter which others are looked at with it.
    """

    words: str
    keeps: Callable[[Batch], NDArray[np.bool_]]
