"""A score of infinitely many images (Chong and Forsyth, 1911.07023).

FID and IS are biased by a term in 1/N; a line through their values at several N, over 1/N, meets
the axis at the value without it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.metrics._score import Score

NUM_SIZES = 15
LEAST = 5000


def extrapolate(
    score: Callable[[NDArray[np.int64]], float], num_images: int, *, seed: int = 0
) -> Score:
    """The value at 1/N = 0, with the error of the fit's intercept.

    Args:
        score: numbers of some of the images -> their score.
        num_images: how many there are. The sizes go from 5,000, or half of them, to all.
        seed: chooses the images of each size.

    Raises:
        DataError: too few images for a line.
    """
    if num_images < 2 * NUM_SIZES:
        raise DataError(f"{num_images} images: an extrapolation takes {2 * NUM_SIZES} or more")
    sizes = np.linspace(min(LEAST, num_images // 2), num_images, NUM_SIZES).astype(int)
    rng = np.random.default_rng(seed)
    found = [score(np.sort(rng.permutation(num_images)[:size])) for size in sizes]
    (_, intercept), covariance = np.polyfit(1 / sizes, found, 1, cov=True)
    return Score(float(intercept), float(covariance[1, 1] ** 0.5))
