"""1-NN two-sample test (Lopez-Paz and Oquab, 1610.06545; Xu et al., 1806.07755).

A leave-one-out 1-nearest-neighbour classifier tells real from generated features. One half: it
cannot. Above: the two differ. Far below among the generated: they are copies of real images.
"""

import torch
from torch import Tensor

from gantrain.metrics._measured import Measured
from gantrain.metrics._neighbours import MAX_IMAGES, nearest_within, some_features
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score, proportion

NEEDS = ("features",)
BETTER: dict[str, Better] = {"nn_accuracy": 0.5, "nn_accuracy_real": 0.5, "nn_accuracy_fake": 0.5}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"nn_accuracy", "nn_accuracy_real", "nn_accuracy_fake"}: as many images of each side."""
    real = reference.real
    count = min(len(real), len(fake), MAX_IMAGES)
    right = told_apart(some_features(real, count), some_features(fake, count))
    return {
        "nn_accuracy": proportion(int(right.sum()), 2 * count),
        "nn_accuracy_real": proportion(int(right[:count].sum()), count),
        "nn_accuracy_fake": proportion(int(right[count:].sum()), count),
    }


def told_apart(real: Tensor, fake: Tensor) -> Tensor:
    """Is the nearest neighbour of the same set? float64 (N, F) twice -> bool (2N,), real first."""
    _, nearest = nearest_within(torch.cat([real, fake]))
    sides = torch.arange(2 * len(real), device=real.device) >= len(real)
    return sides[nearest[:, 0]] == sides
