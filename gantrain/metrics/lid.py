"""Cross local intrinsic dimensionality, CrossLID (Barua et al., 1905.00643).

LID(x) = -1 / mean_i log(d_i / d_k), d_1 <= ... <= d_k the distances of x to its k nearest generated
images; averaged over real x. Low where the generated images lie all around the real ones; it grows
when they leave the data's manifold or some of its modes.
"""

from torch import Tensor

from gantrain.metrics._measured import Measured
from gantrain.metrics._neighbours import nearest, nearest_within, some_features
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("features",)
BETTER: dict[str, Better] = {"cross_lid": "lower", "lid_real": None}
NUM_NEIGHBOURS = 100


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"cross_lid", "lid_real"}: of the real images among the generated, and among themselves."""
    real, generated = some_features(reference.real), some_features(fake)
    k = max(2, min(NUM_NEIGHBOURS, len(real) // 10, len(generated) // 10))
    found = {
        "cross_lid": local_dimensions(nearest(real, generated, k)[0]),
        "lid_real": local_dimensions(nearest_within(real, k)[0]),
    }
    return {
        name: Score(float(of_each.mean()), float(of_each.std() / len(of_each) ** 0.5), len(of_each))
        for name, of_each in found.items()
    }


def local_dimensions(squared: Tensor) -> Tensor:
    """LID of each point, (M,), from the squared distances (M, k) to its neighbours, ascending."""
    logs = squared.clamp(min=1e-30).log() / 2
    return -1 / (logs - logs[:, -1:]).mean(dim=1).clamp(max=-1e-6)
