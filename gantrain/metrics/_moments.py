"""Mean and covariance of features, accumulated in float64, and the Frechet distance of two such.

F features, N images.
"""

import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ganinfer.errors import DataError


class Moments:
    """Mean and covariance of a stream of feature vectors, in memory that does not grow.

    Attributes:
        num_images: N. mean: float64 (F,).
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.num_images = 0
        self.mean = torch.zeros(0, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64, device=device)
        self._few: list[Tensor] = []  # the features themselves, while they are fewer than F

    @classmethod
    def of(
        cls, batches: Iterable[Tensor | NDArray[Any]], device: torch.device | str = "cpu"
    ) -> "Moments":
        """Of all features in batches (n, F) of any float type.

        Raises:
            DataError: a feature is not finite.
        """
        moments = cls(device)
        for batch in batches:
            moments.update(batch)
        return moments

    @classmethod
    def given(cls, mean: Tensor, covariance: Tensor, num_images: int) -> "Moments":
        """Known moments, mean (F,) and covariance (F, F), said to be of num_images images."""
        moments = cls(mean.device)
        moments.num_images, moments.mean = num_images, mean.double()
        moments._scatter = covariance.double() * (num_images - 1)
        return moments

    def update(self, features: Tensor | NDArray[Any]) -> None:
        """Take in features (n, F) (Chan, Golub, LeVeque: merging two sets of moments).

        Raises:
            DataError: a feature is not finite.
        """
        count = len(features)
        if not count:
            return
        batch = torch.as_tensor(features).to(self.mean.device, torch.float64)
        if not batch.isfinite().all():
            raise DataError("a feature is NaN or infinite; the images or the extractor are broken")
        if not self.num_images:
            self.mean, self._scatter = (
                batch.new_zeros(batch.shape[1]),
                batch.new_zeros(batch.shape[1:] * 2),
            )
        total = self.num_images + count
        batch_mean = batch.mean(dim=0)
        centred = batch - batch_mean
        delta = batch_mean - self.mean
        self._scatter.addmm_(centred.T, centred)
        self._scatter.addr_(delta, delta, alpha=self.num_images * count / total)
        self.mean = self.mean + delta * (count / total)
        self.num_images = total
        self._few = [*self._few, batch] if total < len(self.mean) else []
        self.__dict__.pop("factor", None)

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (F, F), ddof 1 as in TTUR.

        Raises:
            DataError: fewer than 2 images.
        """
        if self.num_images < 2:
            raise DataError(
                f"covariance of {self.num_images} images: it takes 2 or more (data and --num)"
            )
        return self._scatter / (self.num_images - 1)

    @cached_property
    def factor(self) -> Tensor:
        """A matrix L (F, R) with L L^T the covariance.

        Of fewer images than features they are the centred features, which makes the distance
        cheap (Mathiasen and Hvilshoj, Fast FID, 2009.14075) and stays exact; else Cholesky's
        factor, or the scaled eigenvectors where that is singular.
        """
        covariance = self.covariance
        if self._few:
            centred = torch.cat(self._few) - self.mean
            return centred.T / math.sqrt(self.num_images - 1)
        lower: Tensor
        lower, failed = torch.linalg.cholesky_ex(covariance)
        pivots = lower.diagonal()
        if not failed and pivots.min() > 1e-6 * pivots.max():
            return lower
        values, vectors = torch.linalg.eigh(covariance)
        rank = max(1, int((values > 1e-14 * values[-1]).sum()))
        scaled: Tensor = vectors[:, -rank:] * values[-rank:].clamp(min=0).sqrt()
        return scaled


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^1/2) (Heusel et al., 1706.08500, equation 6).

    With S = L L^T, Tr (S1 S2)^1/2 is the sum of the singular values of L1^T L2: no matrix root that
    could turn complex, and full precision where a covariance is singular.
    """
    trace_of_root = torch.linalg.svdvals(a.factor.T @ b.factor).sum()
    trace = a.covariance.trace() + b.covariance.trace() - 2 * trace_of_root
    return float((a.mean - b.mean).square().sum() + trace)
