"""Kernel Inception distance (Binkowski et al., 1801.01401): MMD^2 with (x.y / F + 1)^3."""

import torch
from torch import Tensor

from gantrain.metrics._measured import Measured
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score
from gantrain.metrics._subsets import mean_over_subsets

NEEDS = ("features",)
BETTER: dict[str, Better] = {"kid": "lower"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"kid"}: mean of 100 subsets of 1,000; unbiased, so around 0 between equal distributions."""
    real, generated = (
        torch.from_numpy(side.features).to(fake.device, torch.float64)
        for side in (reference.real, fake)
    )
    return {"kid": mean_over_subsets(polynomial, real, generated)}


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """(x.y / F + 1)^3."""
    return (x @ y.T / x.shape[1] + 1) ** 3
