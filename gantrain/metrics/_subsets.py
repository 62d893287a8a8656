"""Kernel two-sample statistics as means over random subsets, which bounds their cost."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gantrain.metrics._score import Score

NUM_SUBSETS = 100
SUBSET_SIZE = 1000

Kernel = Callable[[Tensor, Tensor], Tensor]  # (M, F), (N, F) -> (M, N)


def mean_over_subsets(kernel: Kernel, real: Tensor, fake: Tensor, *, seed: int = 0) -> Score:
    """Unbiased MMD^2 (Gretton et al., 2012), averaged over subsets of both sets.

    Args:
        kernel: k(x, y).
        real, fake: float64 features (M, F), (N, F).
        seed: chooses the subsets, NUM_SUBSETS of SUBSET_SIZE images or of all that there are.

    Returns:
        The mean. Its error is the spread of the subsets, scaled from their size to that of the
        smaller set.
    """
    rng = np.random.default_rng(seed)
    fewest = min(len(real), len(fake))
    size = min(SUBSET_SIZE, fewest)
    found = []
    for _ in range(NUM_SUBSETS):
        rows = (torch.from_numpy(rng.permutation(len(x))[:size]).to(x.device) for x in (real, fake))
        i, j = rows
        found.append(unbiased_mmd(kernel, real[i], fake[j]))
    error = float(np.std(found, ddof=1) * (size / fewest) ** 0.5)
    return Score(float(np.mean(found)), error)


def unbiased_mmd(kernel: Kernel, x: Tensor, y: Tensor) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), each point's pair with itself left out."""
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    m, n = len(x), len(y)
    within_x = (xx.sum() - xx.trace()) / (m * (m - 1))
    within_y = (yy.sum() - yy.trace()) / (n * (n - 1))
    return float(within_x + within_y - 2 * xy.mean())
