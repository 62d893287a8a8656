"""Mean and covariance of features, accumulated in float64, and the Frechet distance of two such.

F features, N images.
"""

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError

Floats = NDArray[np.float64]


class FeatureStatistics:
    """Mean and covariance of a stream of feature vectors, in memory that does not grow."""

    def __init__(self, num_features: int) -> None:
        self.num_images = 0
        self.mean: Floats = np.zeros(num_features)
        self._scatter: Floats = np.zeros((num_features, num_features))

    def update(self, features: Floats) -> None:
        """Take in features (N, F) (Chan, Golub, LeVeque: merging two sets of moments).

        Raises:
            DataError: a feature is not finite.
        """
        if not len(features):
            return
        if not np.isfinite(features).all():
            raise DataError("a feature is NaN or infinite; the images or the extractor are broken")
        count = len(features)
        total = self.num_images + count
        batch_mean = features.mean(axis=0)
        centred = features - batch_mean
        delta = batch_mean - self.mean
        self._scatter += centred.T @ centred
        self._scatter += np.outer(delta, delta) * (self.num_images * count / total)
        self.mean = self.mean + delta * (count / total)
        self.num_images = total

    @property
    def covariance(self) -> Floats:
        """Unbiased covariance (F, F), ddof 1 as in TTUR.

        Raises:
            DataError: fewer than 2 images.
        """
        if self.num_images < 2:
            raise DataError(
                f"covariance of {self.num_images} images: it takes 2 or more (data and --num)"
            )
        return self._scatter / (self.num_images - 1)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^1/2) (Heusel et al., 1706.08500, equation 6).

    Tr (S1 S2)^1/2 is the sum of the singular values of S1^1/2 S2^1/2: no matrix root that could
    turn complex, and full precision where a covariance is singular.
    """
    product = _symmetric_root(a.covariance) @ _symmetric_root(b.covariance)
    trace_of_root = np.linalg.svd(product, compute_uv=False).sum()
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * trace_of_root
    return float(((a.mean - b.mean) ** 2).sum() + trace)


def _symmetric_root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    root: Floats = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root
