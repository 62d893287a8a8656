"""Inception score (Salimans et al., 1606.03498): exp E_x KL(p(y|x) || p(y)).

Only of Inception features is it the Inception score; of a classifier's it is the same formula.
"""

import numpy as np

from gantrain.metrics._measured import Measured
from gantrain.metrics._predictions import Floats, kl_divergence, over_splits, probabilities
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("logits",)
BETTER: dict[str, Better] = {"inception_score": "higher"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"inception_score"}: mean over 10 splits, with their standard deviation; in [1, K]."""
    value, deviation = over_splits(inception_score, probabilities(fake))
    return {"inception_score": Score(value, deviation)}


def inception_score(p: Floats) -> float:
    """Of p(y|x), float64 (N, K)."""
    return float(np.exp(kl_divergence(p, p.mean(axis=0)).mean()))
