"""How many of the data's modes a generator covers, as VEEGAN and PacGAN count them.

A mode is a class. Srivastava et al., 1705.07761; Lin et al., 1712.04086.
"""

import numpy as np

from ganinfer.errors import DataError
from gantrain.extractors.points import Points
from gantrain.metrics._measured import Measured
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score, proportion

NEEDS = ("logits",)
BETTER: dict[str, Better] = {
    "modes": "higher",
    "num_modes": None,
    "modes_kl": "lower",
    "high_quality": "higher",
}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"modes", "num_modes", "modes_kl"}; for points also {"high_quality"}.

    modes: classes in which the classifier sees at least one image (of points: one within 3 sigma
    of the centre). modes_kl: KL divergence, in nats, from the data's histogram of classes to the
    generated one. high_quality: share of points within 3 sigma of a centre.
    """
    labels, num_classes = reference.real.labels, len(reference.classes)
    if not reference.extractor.sees_classes or labels is None:
        raise DataError(
            "modes: the extractor does not see the dataset's classes; choose other metrics"
        )
    classes, best = fake.logits.argmax(axis=1), fake.logits.max(axis=1)
    points = isinstance(reference.extractor, Points)
    good = best >= -3 if points else np.ones(len(best), bool)
    seen = np.bincount(classes[good], minlength=num_classes)
    real = np.bincount(labels, minlength=num_classes) / len(labels)
    fake_shares = seen / max(seen.sum(), 1)
    there = seen > 0
    logs = np.log(fake_shares[there] / np.maximum(real[there], 1e-12))
    divergence = float((fake_shares[there] * logs).sum())
    # To first order, and, where the shares are nearly equal and that vanishes, to second.
    spread = float((fake_shares[there] * (logs - divergence) ** 2).sum()) / len(fake)
    error = (spread + (num_classes - 1) / 2 / len(fake) ** 2) ** 0.5
    found = {
        "modes": Score(float(there.sum())),
        "num_modes": Score(float((real > 0).sum())),
        "modes_kl": Score(divergence, error),
    }
    if points:
        found["high_quality"] = proportion(int(good.sum()), len(good))
    return found
