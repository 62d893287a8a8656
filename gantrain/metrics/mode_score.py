"""Mode score (Che et al., 1612.02136): exp(E_x KL(p(y|x) || p(y*)) - KL(p(y) || p(y*))).

y* are the real images' classes, as the extractor sees them: unlike the Inception score it notices
classes that are in other shares than in the data.
"""

import numpy as np

from gantrain.metrics._measured import Measured
from gantrain.metrics._predictions import kl_divergence, over_splits, probabilities
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("logits",)
BETTER: dict[str, Better] = {"mode_score": "higher"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"mode_score"}: mean over 10 splits, with their standard deviation; higher is better."""
    real = probabilities(reference.real).mean(axis=0)
    value, deviation = over_splits(
        lambda p: float(
            np.exp(kl_divergence(p, real).mean() - kl_divergence(p.mean(axis=0), real))
        ),
        probabilities(fake),
    )
    return {"mode_score": Score(value, deviation)}
