"""How sure is a gate? 95 % bootstrap intervals over seeds (Efron, Ann. Statist. 7, 1979).

A resampling draws N of the N seeds with replacement; torch's image of a seed and the shipped one go
together, as they are compared as a pair, and the seeds of B are drawn on their own. The draws are
the same every time, so that two exports of a checkpoint stay byte-identical.

A Frechet distance of few images is too large, by what their moments vary. A pair varies together,
so that the paired distance is too large only by what the differences vary, a sliver of the floor,
and the change of the FID to the data hardly at all, though each FID is. But the sampling floor *is*
that excess. Drawn again it is counted twice, and plain percentiles would lie half as high as the
share: intervals are shifted to where the value is.

N images, F features, R resamplings.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganinfer.bundle.manifest import Interval
from ganinfer.bundle.witness import Features, Floats, Moments, frechet_distance

NUM_RESAMPLINGS = 200
_ENDS = (0.025, 0.975)


@dataclass(frozen=True)
class Share:
    """A paired distance over the sampling floor, of N images.

    Attributes:
        value: what it is. interval: around it; None where nothing varies.
        lasting: what part of it a difference of the networks makes. It stays with more images,
            while the rest, which rounding makes of some images and not of others, falls as 1 / N.
        spread: standard deviation of the distance over the distance.
    """

    value: float
    interval: Interval | None = None
    lasting: float = 1.0
    spread: float = 0.0


class Resampled:
    """Torch's images of the seeds A and B as an extractor sees them, resampled."""

    def __init__(self, torch_a: Features, torch_b: Features) -> None:
        """Of features float32 (N, F)."""
        self._torch_a, self._a = torch_a, _resampled(torch_a)
        self._floors = frechet_distance(self._a, _resampled(torch_b, stream=1))

    def share(self, share: float, shipped: Features) -> Share:
        """What is known of the paired distance over the floor.

        Args:
            share: the point value.
            shipped: float32 (N, F), of the seeds A.
        """
        paired = frechet_distance(self._a, _resampled(shipped)).clip(min=0)
        distance = float(frechet_distance(_moments(self._torch_a), _moments(shipped)))
        if not share > 0 or not distance > 0 or not paired.all() or not (self._floors > 0).all():
            return Share(share)
        shares = paired / self._floors
        low, high = share * np.quantile(shares, _ENDS) / np.median(shares)
        # Resampling adds once more what rounding alone makes of so few images.
        chance = min(max(float(np.median(paired)) - distance, 0.0), distance)
        spread = float(paired.std()) / distance
        return Share(share, (float(low), float(high)), 1 - chance / distance, spread)

    def fid_change(self, change: float, real: Moments, shipped: Features) -> Interval:
        """Around the size of the change of the FID to the data.

        Args:
            change: the point value, with its sign.
            real: moments of the data, as they are.
            shipped: float32 (N, F), of the seeds A.
        """
        changes = frechet_distance(real, _resampled(shipped)) - frechet_distance(real, self._a)
        low, high = change + np.quantile(changes, _ENDS) - np.median(changes)
        ends = sorted((abs(float(low)), abs(float(high))))
        return (0.0 if low < 0 < high else ends[0]), ends[1]


def mean_interval(values: NDArray[np.generic]) -> Interval | None:
    """Around the mean of values (N, ...), resampled by image; None if all images are equal."""
    by_image = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
    if by_image.min() == by_image.max():
        return None
    low, high = np.quantile(_counts(len(values)) @ by_image / len(values), _ENDS)
    return float(low), float(high)


def psnr_interval(squares: NDArray[np.generic], *, peak: float) -> Interval | None:
    """Around the PSNR in dB of squared errors (N, ...); None if all images are equal."""
    found = mean_interval(squares)
    if found is None or found[0] == 0:
        return None
    low, high = (10 * math.log10(peak**2 / mean_square) for mean_square in reversed(found))
    return low, high


def remark(interval: Interval | None, limit: float) -> str:
    """What there is to say if the limit lies inside the interval, else nothing."""
    inside = interval is not None and interval[0] < limit < interval[1]
    return "too close to call" if inside else ""


def _moments(features: Features) -> Moments:
    """Mean (F,) and covariance (F, F) of features (N, F)."""
    return features.mean(axis=0, dtype=np.float64), np.cov(features.T.astype(np.float64))


def _resampled(features: Features, *, stream: int = 0) -> Moments:
    """Means (R, F) and covariances (R, F, F) of features (N, F)."""
    counts, num_images = _counts(len(features), stream), len(features)
    origin = features.mean(axis=0, dtype=np.float64)
    centred = features - origin
    means = counts @ centred / num_images
    squares = np.stack([centred.T @ (centred * row[:, None]) for row in counts])
    covariances = squares - num_images * means[:, :, None] * means[:, None, :]
    return origin + means, covariances / (num_images - 1)


def _counts(num_images: int, stream: int = 0) -> Floats:
    """How often each seed is drawn, float64 (R, N)."""
    rng = np.random.default_rng([num_images, stream])
    shares = np.full(num_images, 1 / num_images)
    return rng.multinomial(num_images, shares, size=NUM_RESAMPLINGS).astype(np.float64)
