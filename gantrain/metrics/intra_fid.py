"""Class-conditional FID (Miyato and Koyama, 1802.05637): the mean over classes of their FID."""

import numpy as np
import torch

from ganinfer.errors import DataError
from gantrain.data.names import listed
from gantrain.metrics._measured import Measured
from gantrain.metrics._moments import Moments
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score
from gantrain.metrics.fid import distance

NEEDS = ("features", "labels")
BETTER: dict[str, Better] = {"intra_fid": "lower", "intra_fid_worst_class": "lower"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"intra_fid", "intra_fid_worst_class"}: images asked for by class against those of it."""
    real = reference.real
    if real.labels is None or fake.labels is None:
        raise DataError(
            "intra_fid: it needs a dataset with classes and images that were asked for by class"
        )
    classes, found, rare = [], [], []
    for k in np.unique(fake.labels):
        chosen, wanted = fake.features[fake.labels == k], real.features[real.labels == k]
        if min(len(chosen), len(wanted)) < 2:
            rare.append(reference.classes[k])
            continue
        a, b = (Moments.of([features], fake.device) for features in (wanted, chosen))
        classes.append(reference.classes[k])
        found.append(distance(a, b, torch.from_numpy(chosen).to(fake.device).double()))
    if not found:
        raise DataError("intra_fid: no class has two images of either side; measure more (--num)")
    worst = int(np.argmax([score.value for score in found]))
    errors = [score.standard_error for score in found if score.standard_error is not None]
    mean = float(np.mean([score.value for score in found]))
    error = float(np.linalg.norm(errors) / len(found)) if len(errors) == len(found) else None
    notes = [
        f"class {k}: {score.note}" for k, score in zip(classes, found, strict=True) if score.note
    ]
    if rare:
        notes.insert(0, f"left out, with fewer than two images of a side: {listed(rare)}")
    return {
        "intra_fid": Score(mean, error, note="; ".join(notes[:2]) or None),
        "intra_fid_worst_class": found[worst].with_note(f"class {classes[worst]}"),
    }
