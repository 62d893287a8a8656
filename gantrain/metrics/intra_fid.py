"""Class-conditional FID (Miyato and Koyama, 1802.05637): the mean over classes of their FID."""

import numpy as np

from ganinfer.errors import DataError
from gantrain.measured import Measured
from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("features",)
BETTER: dict[str, Better] = {"intra_fid": "lower", "intra_fid_worst_class": "lower"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"intra_fid", "intra_fid_worst_class"}: images asked for by class against those of it."""
    real = reference.real
    if real.labels is None or fake.labels is None:
        raise DataError(
            "intra_fid: it needs a dataset with classes and images that were asked for by class"
        )
    distances, fewest = [], len(fake)
    for k in np.unique(fake.labels):
        chosen, wanted = fake.features[fake.labels == k], real.features[real.labels == k]
        fewest = min(fewest, len(chosen), len(wanted))
        pair = (Moments.of([features], fake.device) for features in (wanted, chosen))
        distances.append(frechet_distance(*pair))
    num_features = fake.features.shape[1]
    note = f"as few as {fewest:,} images a class for {num_features:,} features: biased upwards"
    worst = int(np.argmax(distances))
    return {
        "intra_fid": Score(
            float(np.mean(distances)), note=note if fewest <= num_features else None
        ),
        "intra_fid_worst_class": Score(
            distances[worst], note=f"class {reference.dataset.classes[worst]}"
        ),
    }
