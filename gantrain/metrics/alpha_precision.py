"""Alpha-precision, beta-recall and authenticity (Alaa et al., 2102.08921).

The alpha-support of a set is the ball around its mean that holds the share alpha of it. P(alpha) is
the share of generated images in the real alpha-support, and alpha itself for a faithful generator;
R(beta) is the share of real images whose nearest generated image is nearer than their 5th nearest
real one, and lies in the generated beta-support. A generated image is authentic if it lies farther
from the nearest training image than that image's own nearest neighbour. The paper maps features
into a hypersphere first; here they are used as they are.
"""

import numpy as np
import torch
from torch import Tensor

from gantrain.metrics._measured import Measured
from gantrain.metrics._neighbours import (
    MAX_IMAGES,
    nearest,
    nearest_of_all,
    nearest_within,
    some_features,
)
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score, proportion

NEEDS = ("features",)
BETTER: dict[str, Better] = {
    "alpha_precision": "higher",
    "beta_recall": "higher",
    "authenticity": "higher",
}
NUM_NEIGHBOURS = 5
LEVELS = torch.linspace(0, 1, 30, dtype=torch.float64)
_RESAMPLINGS = 100


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"alpha_precision", "beta_recall", "authenticity"} in [0, 1], of at most 10,000 images."""
    count = min(len(reference.real), len(fake), MAX_IMAGES)
    real, generated = some_features(reference.real, count), some_features(fake, count)
    to_centre = (real - real.mean(0)).norm(dim=1), (generated - real.mean(0)).norm(dim=1)
    precision = _agreement(support_levels(*to_centre))

    spread = (generated - generated.mean(0)).norm(dim=1)
    gap, partner = nearest(real, generated)
    covered = gap[:, 0] <= nearest_within(real, NUM_NEIGHBOURS)[0][:, -1]
    # A real image without a near generated one counts at no level: level 2 stands for that.
    levels = torch.where(covered, support_levels(spread, spread[partner[:, 0]]), 2.0)
    recall = _agreement(levels)

    training = reference.training
    away, closest = nearest_of_all(generated, training)
    partners = torch.from_numpy(training.features[closest[:, 0].cpu()]).to(generated)
    authentic = away[:, 0] > nearest_of_all(partners, training, 2)[0][:, 1]
    return {
        "alpha_precision": precision,
        "beta_recall": recall,
        "authenticity": proportion(int(authentic.sum()), len(authentic)),
    }


def support_levels(inside: Tensor, distances: Tensor) -> Tensor:
    """The least level whose support holds a point, (N,), from distances to the centre.

    Args:
        inside: (M,), of the set whose supports they are.
        distances: (N,), of the points.

    Returns:
        Shares of the set that lie nearer; 2 for a point outside all supports.
    """
    levels = torch.searchsorted(inside.sort().values, distances) / len(inside)
    return torch.where(distances > inside.max(), 2.0, levels.double())


def _agreement(levels: Tensor) -> Score:
    """1 - 2 x the mean over alpha of |P(alpha) - alpha|, with its bootstrap error."""

    def agreement(drawn: Tensor) -> float:
        curve = (drawn[:, None] <= LEVELS.to(drawn.device)).double().mean(0)
        return 1 - 2 * float((curve - LEVELS.to(drawn.device)).abs().mean())

    rng = np.random.default_rng(0)
    resampled = [
        agreement(levels[torch.from_numpy(rng.integers(len(levels), size=len(levels)))])
        for _ in range(_RESAMPLINGS)
    ]
    return Score(agreement(levels), float(np.std(resampled)), len(levels))
