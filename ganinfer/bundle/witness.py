"""What a bundle keeps so that any host can tell, without torch, whether it gives the right images.

A witness holds moments of torch's images for the first seeds, as a small network sees them, and the
sampling floor: how far torch's images of other seeds lie from them. A backend's images for the same
seeds, seen by the same network, must lie within a tenth of the floor. F features, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import GateResult, gate_result
from ganinfer.errors import BundleError

MAX_PAIRED_SHARE = 0.10  # of the sampling floor
_LEAST_FLOOR = 1e-12  # of features whose size is about 1
PAIRED, PAIRED_OF_CLASS = "paired FID / floor", "paired, worst class"

Features = NDArray[np.float32]  # (N, F)
Labels = NDArray[np.int64] | None
Floats = NDArray[np.float64]
Moments = tuple[Floats, Floats]  # means (..., F), covariances (..., F, F)
Rows = NDArray[np.bool_] | slice


@dataclass(frozen=True)
class Witness:
    """Moments of torch's images: first of all of them, then of each class, if there are enough.

    Attributes:
        num_images: N, for the seeds 0 to N - 1, each drawing its label.
        means: float64 (1 + K, F). covariances: float64 (1 + K, F, F). floors: float64 (1 + K,).
    """

    num_images: int
    means: Floats
    covariances: Floats
    floors: Floats

    @classmethod
    def of(
        cls, a: Features, b: Features, labels: tuple[Labels, Labels], num_classes: int
    ) -> "Witness":
        """Of torch's features for the seeds (N, F), and for as many others.

        Args:
            a, b: float32 (N, F).
            labels: int64 (N,) of both, or None.
            num_classes: K, or 0 to leave the classes out.
        """
        groups_a, groups_b = (_groups(part, num_classes) for part in labels)
        moments = [_moments(a[rows]) for rows in groups_a]
        # A floor of 0 counts as a bit, and as something where all images are equal.
        least = max(1e-6 * float(np.trace(moments[0][1])), _LEAST_FLOOR)
        floors = [
            max(float(frechet_distance(own, _moments(b[rows]))), least)
            for own, rows in zip(moments, groups_b, strict=True)
        ]
        means, covariances = (np.stack(part) for part in zip(*moments, strict=True))
        return cls(len(a), means, covariances, np.array(floors))

    def shares(self, features: Features, labels: Labels) -> Floats:
        """Distances of the same seeds' features (N, F) to torch's, over the floors, (1 + K,)."""
        groups = _groups(labels, len(self.floors) - 1)
        found = [
            frechet_distance((mean, covariance), _moments(features[rows])) / floor
            for mean, covariance, floor, rows in zip(
                self.means, self.covariances, self.floors, groups, strict=True
            )
        ]
        return np.maximum(found, 0.0)

    def save(self) -> bytes:
        """Means, covariances and floors, one after the other, float64 little-endian."""
        parts = (self.means, self.covariances, self.floors)
        return b"".join(part.astype("<f8").tobytes() for part in parts)

    @classmethod
    def load(cls, bundle: Bundle) -> "Witness | None":
        """What `save` wrote into a bundle, whose manifest has the shapes; None if it has none.

        Raises:
            BundleError: it is something else.
        """
        files = bundle.manifest.witness
        if files is None:
            return None
        groups, size = files.num_groups, files.num_features
        counts = [groups * size, groups * size * size, groups]
        data = bundle.read(files.moments)
        where = f"{bundle.path}: {files.moments}"
        if len(data) != 8 * sum(counts):
            raise BundleError(
                f"{where}: {len(data)} bytes, the manifest says {8 * sum(counts)}; export it again"
            )
        numbers = np.frombuffer(data, "<f8").astype(np.float64)
        if not np.isfinite(numbers).all():
            raise BundleError(f"{where}: numbers that are not finite; export it again")
        means, covariances, floors = np.split(numbers, np.cumsum(counts)[:2])
        return cls(
            files.num_images,
            means.reshape(groups, size),
            covariances.reshape(groups, size, size),
            floors,
        )


def paired_gates(
    witness: Witness, features: Features, labels: Labels, artifact: str, classes: Sequence[str]
) -> list[GateResult]:
    """The paired distance over the sampling floor, of all images and of the worst class.

    Args:
        witness: torch's side.
        features: float32 (N, F), of what ships, for the same seeds.
        labels: int64 (N,), or None.
        artifact: what ships, for the result.
        classes: names of the K classes.
    """
    shares = witness.shares(features, labels)
    gates: list[tuple[str, int | None]] = [(PAIRED, None)]
    if len(shares) > 1:
        gates.append((PAIRED_OF_CLASS, int(np.argmax(shares[1:]))))
    limit, results = f"<= {MAX_PAIRED_SHARE:g}", []
    for gate, k in gates:
        value = float(shares[0 if k is None else 1 + k])
        results.append(
            gate_result(
                artifact,
                gate,
                value,
                limit,
                value <= MAX_PAIRED_SHARE,
                "" if k is None else f"class {classes[k]}",
                num_images=len(features[class_rows(labels, k)]),
            )
        )
    return results


def class_rows(labels: Labels, k: int | None) -> Rows:
    """The rows of the images of class k, or of all."""
    if k is None:
        return slice(None)
    assert labels is not None
    rows: Rows = labels == k
    return rows


def frechet_distance(a: Moments, b: Moments) -> Floats:
    """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^1/2), one a pair of moments.

    gantrain.metrics has the same for many features and any device; this one needs NumPy alone.
    """
    first, second = (_factor(covariance) for _, covariance in (a, b))
    product = first.swapaxes(-1, -2) @ second  # has the singular values of (S1 S2)^1/2
    trace_of_root = np.linalg.svd(product, compute_uv=False).sum(axis=-1)
    traces = [np.trace(covariance, axis1=-2, axis2=-1) for _, covariance in (a, b)]
    distances: Floats = ((a[0] - b[0]) ** 2).sum(axis=-1) + sum(traces) - 2 * trace_of_root
    return distances


def _factor(covariance: Floats) -> NDArray[np.floating]:
    """Some L with L L^T = S, of covariances (..., F, F)."""
    factor: NDArray[np.floating]
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:  # features that do not vary, or fewer images than features
        values, vectors = np.linalg.eigh(covariance)
        factor = vectors * np.sqrt(values.clip(min=0))[..., None, :]
    return factor


def _moments(features: Features) -> Moments:
    """Mean (F,) and unbiased covariance (F, F)."""
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    centred = wide - mean
    return mean, centred.T @ centred / (len(wide) - 1)


def _groups(labels: Labels, num_classes: int) -> list[Rows]:
    """Rows of all images, then of each class."""
    return [class_rows(labels, k) for k in (None, *range(num_classes))]
