"""Is the difference between two scores more than chance? The bootstrap, and Holm's correction."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from gantrain.metrics._score import Better, Parts, Score

NUM_RESAMPLES = 10_000
LEVEL = 0.05  # how often chance alone may pass for a difference, in all of a comparison
_BLOCK = 500  # resamples at once

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What was found of one target.

    Attributes:
        scores, parts: by name; a score may have no parts.
        images: equal where the images of two targets belong together one by one, as those of the
            same seeds do, and are resampled together.
    """

    scores: Mapping[str, Score]
    parts: Parts
    images: Hashable


@dataclass(frozen=True)
class Difference:
    """A score of one target minus that of another.

    Attributes:
        score: its name. first, second: numbers of the targets.
        value: the second's minus the first's.
        low, high: 95 % interval; None if nothing is known of chance.
        p: how often chance alone gives as large a difference, and corrected by Holm for all
            differences of the comparison; or None.
        verdict: of the second: "better", "worse", "differs" where neither is, "no difference seen"
            or "not known".
        method: "bootstrap", "standard errors" or "none".
    """

    score: str
    first: int
    second: int
    value: float
    low: float | None
    high: float | None
    p: float | None
    verdict: str
    method: str


def differences(found: Sequence[Found], better: Mapping[str, Better]) -> list[Difference]:
    """Every score that all targets have, between every two of them."""
    names = [name for name in found[0].scores if all(name in one.scores for one in found)]
    resamples = [_resampled(one) for one in found]
    plain = [
        _difference(name, (a, b), found, resamples)
        for name in names
        for a, b in combinations(range(len(found)), 2)
    ]
    known = [d.p for d in plain if d.p is not None]
    corrected = iter(holm(known))
    return [
        _judged(d, found, better.get(d.score), None if d.p is None else next(corrected))
        for d in plain
    ]


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979), in the same order."""
    order = np.argsort(p, kind="stable")
    scaled = np.array(p)[order] * np.arange(len(p), 0, -1)
    result = np.empty(len(p))
    result[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in result]


def resampled_means(values: Floats, *, seed: Sequence[int]) -> Floats:
    """Means of (N, Q) over NUM_RESAMPLES resamples of the rows with replacement, a row each."""
    rng, count = np.random.default_rng(seed), len(values)
    means = []
    for _ in range(0, NUM_RESAMPLES, _BLOCK):
        drawn = rng.integers(count, size=(_BLOCK, count))
        times = np.stack([np.bincount(row, minlength=count) for row in drawn])
        means.append(times @ values / count)
    return np.concatenate(means)


def _resampled(one: Found) -> dict[str, Floats]:
    """What resampling adds to each score, (NUM_RESAMPLES,)."""
    added: dict[str, Floats] = {}
    together: dict[int, list[str]] = {}
    for name, parts in one.parts.items():
        together.setdefault(len(parts), []).append(name)
    for count, names in together.items():
        values = np.stack([one.parts[name] for name in names], axis=1)
        means = resampled_means(values - values.mean(0), seed=[count, *str(one.images).encode()])
        added |= dict(zip(names, means.T, strict=True))
    return added


def _difference(
    name: str,
    pair: tuple[int, int],
    found: Sequence[Found],
    resamples: Sequence[Mapping[str, Floats]],
) -> Difference:
    first, second = pair
    a, b = (found[k].scores[name] for k in pair)
    value = b.value - a.value
    if all(name in resamples[k] for k in pair):
        drawn = value + resamples[second][name] - resamples[first][name]
        low, high = (float(q) for q in np.quantile(drawn, [0.025, 0.975]))
        # One more on either side: a p-value of none in 10,000 is not 0.
        share = (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + len(drawn))
        return Difference(
            name, first, second, value, low, high, min(1.0, 2 * share), "", "bootstrap"
        )
    if a.standard_error is None or b.standard_error is None:
        return Difference(name, first, second, value, None, None, None, "", "none")
    error = math.hypot(a.standard_error, b.standard_error)
    low, high = value - 1.96 * error, value + 1.96 * error
    p = math.erfc(abs(value) / error / math.sqrt(2)) if error else float(value == 0)
    return Difference(name, first, second, value, low, high, p, "", "standard errors")


def _judged(
    difference: Difference, found: Sequence[Found], goal: Better, p: float | None
) -> Difference:
    if p is None:
        return replace(difference, verdict="not known")
    if p >= LEVEL:
        return replace(difference, p=p, verdict="no difference seen")
    a, b = (found[k].scores[difference.score].value for k in (difference.first, difference.second))
    if goal is None:
        verdict = "differs"
    elif isinstance(goal, float):
        verdict = "better" if abs(b - goal) < abs(a - goal) else "worse"
    else:
        verdict = "better" if (b < a) == (goal == "lower") else "worse"
    return replace(difference, p=p, verdict=verdict)
