"""Spatial FID (Nash et al., 2103.03841): FID of 7 channels of a map that still has places.

Of Inception it is mixed_6/conv, 7 x 17 x 17 = 2,023 features.
"""

from gantrain.measured import Measured
from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("spatial",)
BETTER: dict[str, Better] = {"sfid": "lower"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"sfid"}: lower is better; it sees where things are, which the pooled features forget."""
    real = Moments.of(reference.real.stream("spatial"), fake.device)
    generated = Moments.of(fake.stream("spatial"), fake.device)
    fewest, num_features = min(real.num_images, generated.num_images), len(real.mean)
    note = f"{fewest:,} images for {num_features:,} features: biased upwards"
    return {
        "sfid": Score(
            frechet_distance(real, generated), note=note if fewest <= num_features else None
        )
    }
