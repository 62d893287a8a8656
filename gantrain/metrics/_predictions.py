"""What an extractor takes images for: p(y|x), for the scores that need nothing else. K classes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gantrain.metrics._measured import Measured

Floats = NDArray[np.float64]


def probabilities(measured: Measured) -> Floats:
    """p(y|x) of every image, float64 (N, K)."""
    return np.exp(log_probabilities(measured))


def log_probabilities(measured: Measured) -> Floats:
    """Log p(y|x) of every image, float64 (N, K)."""
    logits = measured.logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    result: Floats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return result


def kl_divergence(p: Floats, q: Floats) -> Floats:
    """Sum p log p/q over the last axis, in nats; 0 log 0 is 0."""
    safe_p, safe_q = np.maximum(p, 1e-300), np.maximum(q, 1e-300)
    result: Floats = (p * (np.log(safe_p) - np.log(safe_q))).sum(axis=-1)
    return result


def entropy(p: Floats) -> Floats:
    """-sum p log p over the last axis, in nats."""
    result: Floats = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=-1)
    return result


def over_splits(
    score: Callable[[Floats], float], p: Floats, num_splits: int = 10
) -> tuple[float, float]:
    """Mean and standard deviation of a score over splits of the rows."""
    parts = np.array_split(p, min(num_splits, len(p)))
    found = [score(part) for part in parts]
    return float(np.mean(found)), float(np.std(found))
