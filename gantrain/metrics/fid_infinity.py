"""FID without its bias: extrapolated to infinitely many generated images (1911.07023)."""

import numpy as np
from numpy.typing import NDArray

from gantrain.metrics._extrapolation import extrapolate
from gantrain.metrics._measured import Measured
from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("features",)
BETTER: dict[str, Better] = {"fid_infinity": "lower"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"fid_infinity"}: the intercept of FID over 1/N at 15 sizes, with its error."""
    features, real = fake.features, reference.moments

    def of(rows: NDArray[np.int64]) -> float:
        return frechet_distance(real, Moments.of([features[rows]], fake.device))

    return {"fid_infinity": extrapolate(of, len(fake))}
