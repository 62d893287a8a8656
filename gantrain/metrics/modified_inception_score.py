"""Modified Inception score, m-IS (Gurumurthy, Sarvadevabhatla, Babu, DeLiGAN, 1706.02071).

exp E_xi E_xj KL(p(y|xi) || p(y|xj)), xi and xj of one class: how various a class's images are.
"""

import numpy as np

from gantrain.metrics._measured import Measured
from gantrain.metrics._predictions import Floats, log_probabilities
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("logits",)
BETTER: dict[str, Better] = {"modified_inception_score": "higher"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"modified_inception_score"}: mean over the classes asked for, or those that are seen."""
    logs = log_probabilities(fake)
    classes = logs.argmax(axis=1) if fake.labels is None else fake.labels
    found = [modified_inception_score(logs[classes == k]) for k in np.unique(classes)]
    error = float(np.std(found, ddof=1) / len(found) ** 0.5) if len(found) > 1 else None
    return {"modified_inception_score": Score(float(np.mean(found)), error)}


def modified_inception_score(logs: Floats) -> float:
    """Of log p(y|x), float64 (N, K); all N^2 pairs, in O(N K)."""
    p = np.exp(logs)
    return float(np.exp((p * logs).sum(axis=1).mean() - p.mean(axis=0) @ logs.mean(axis=0)))
