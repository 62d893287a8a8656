"""Maximum mean discrepancy (Gretton et al., 2012) with a Gaussian kernel on features.

Its width is the median distance between real features.
"""

import torch
from torch import Tensor

from gantrain.metrics._measured import Measured
from gantrain.metrics._neighbours import some_features
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score
from gantrain.metrics._subsets import SUBSET_SIZE, mean_over_subsets

NEEDS = ("features",)
BETTER: dict[str, Better] = {"mmd": "lower"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"mmd"}: MMD^2, unbiased, mean of 100 subsets of 1,000; 0 at equal distributions."""
    real = reference.real
    few = some_features(real, SUBSET_SIZE)
    width = torch.cdist(few, few).square().flatten().median()

    def gaussian(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x, y).square() / width)

    real_features, generated = (
        torch.from_numpy(side.features).to(fake.device, torch.float64) for side in (real, fake)
    )
    return {"mmd": mean_over_subsets(gaussian, real_features, generated)}
