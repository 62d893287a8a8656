"""Class-conditional FID (Miyato and Koyama, 1802.05637): the mean over classes of their FID."""

import numpy as np
import torch

from ganinfer.errors import DataError
from gantrain.metrics._measured import Measured
from gantrain.metrics._moments import Moments
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score
from gantrain.metrics.fid import distance

NEEDS = ("features",)
BETTER: dict[str, Better] = {"intra_fid": "lower", "intra_fid_worst_class": "lower"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"intra_fid", "intra_fid_worst_class"}: images asked for by class against those of it."""
    real = reference.real
    if real.labels is None or fake.labels is None:
        raise DataError(
            "intra_fid: it needs a dataset with classes and images that were asked for by class"
        )
    classes, found = np.unique(fake.labels), []
    for k in classes:
        chosen, wanted = fake.features[fake.labels == k], real.features[real.labels == k]
        a, b = (Moments.of([features], fake.device) for features in (wanted, chosen))
        found.append(distance(a, b, torch.from_numpy(chosen).to(fake.device).double()))
    worst = int(np.argmax([score.value for score in found]))
    errors = [score.standard_error for score in found if score.standard_error is not None]
    mean = float(np.mean([score.value for score in found]))
    error = float(np.linalg.norm(errors) / len(found)) if len(errors) == len(found) else None
    notes = [score.note for score in found if score.note]
    return {
        "intra_fid": Score(mean, error, note=notes[0] if notes else None),
        "intra_fid_worst_class": found[worst].with_note(
            f"class {reference.dataset.classes[classes[worst]]}"
        ),
    }
