"""Kernel two-sample statistics as means over random subsets, which bounds their cost."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ganinfer.errors import DataError
from gantrain.metrics._score import Score

NUM_SUBSETS = 100
SUBSET_SIZE = 1000
LEAST = 4  # images of a side: of fewer, no variance is known

Kernel = Callable[[Tensor, Tensor], Tensor]  # (M, F), (N, F) -> (M, N)


def mean_over_subsets(kernel: Kernel, real: Tensor, fake: Tensor, *, seed: int = 0) -> Score:
    """Unbiased MMD^2 (Gretton et al., 2012), averaged over subsets of both sets.

    Args:
        kernel: k(x, y).
        real, fake: float64 features (M, F), (N, F).
        seed: chooses the subsets, NUM_SUBSETS of SUBSET_SIZE images or of all that there are.

    Returns:
        The mean. Its error is that of a U-statistic of as many pairs of images as the smaller set
        has (Serfling, Approximation Theorems, section 5.2.1): a subset that is the whole set has
        no spread, and its value an error all the same.

    Raises:
        DataError: fewer than four images of a side.
    """
    rng = np.random.default_rng(seed)
    fewest = min(len(real), len(fake))
    if fewest < LEAST:
        raise DataError(f"{fewest} images: a kernel statistic takes {LEAST} or more of each side")
    size = min(SUBSET_SIZE, fewest)
    found, variances = [], []
    for _ in range(NUM_SUBSETS):
        rows = (torch.from_numpy(rng.permutation(len(x))[:size]).to(x.device) for x in (real, fake))
        i, j = rows
        value, *of_pairs = unbiased_mmd(kernel, real[i], fake[j])
        found.append(value)
        variances.append(of_pairs)
    of_one, of_two = np.mean(variances, axis=0)
    variance = (4 * (fewest - 2) * max(of_one, 0) + 2 * of_two) / (fewest * (fewest - 1))
    note = f"{fewest:,} images: its subsets are of {SUBSET_SIZE:,}; the error is large"
    return Score(float(np.mean(found)), variance**0.5, note=note if fewest < SUBSET_SIZE else None)


def unbiased_mmd(kernel: Kernel, x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), each point's pair with itself left out.

    Args:
        kernel: k.
        x, y: (N, F) each.

    Returns:
        The value, and two variances of h = k(x, x') + k(y, y') - k(x, y') - k(x', y) over pairs of
        pairs (x, y), (x', y'): of its mean for one of them, and of itself.
    """
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    n = len(x)
    within_x = (xx.sum() - xx.trace()) / (n * (n - 1))
    within_y = (yy.sum() - yy.trace()) / (n * (n - 1))
    h = (xx + yy - xy - xy.T).fill_diagonal_(0)
    mean = h.sum() / (n * (n - 1))
    of_two = h.square().sum() / (n * (n - 1)) - mean.square()
    # The variance of the rows' means holds of_two / (n - 1) besides what is wanted.
    of_one = ((h.sum(1) / (n - 1)).var() - of_two / (n - 1)) * (n - 1) / (n - 2)
    return float(within_x + within_y - 2 * xy.mean()), float(of_one), float(of_two)
