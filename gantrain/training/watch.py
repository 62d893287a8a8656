"""What goes wrong in a GAN, found in a run's figures and said in words, with what helps.

A collapsed generator, a generator whose gradient has vanished, a saturated discriminator.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

# Of the real images' mean distance from each other, below which generated ones are all alike.
COLLAPSED = 0.15
# Of the largest gradient norm so far.
VANISHED = 1e-3
# D(x) and 1 - D(G(z)) from which on D has nothing to learn and nothing to teach.
SATURATED = 0.99
PATIENCE = 3  # records in a row
BEGUN = 0.2  # of the training, in which images that are all alike are no collapse


class Watch:
    """Looks at every record of a run; each warning comes once, until the trouble has passed."""

    def __init__(self) -> None:
        self._largest_gradient = 0.0
        self._in_a_row: dict[str, int] = {}
        self._warned: set[str] = set()

    def look(self, stats: Mapping[str, float], *, share_done: float) -> list[str]:
        """The warnings that a record gives reason for.

        Args:
            stats: a record, with any of gradient_norm_g, d_real, d_fake, diversity, modes and
                num_modes.
            share_done: of the training, in [0, 1]; a generator that has only begun is forgiven.
        """
        found: dict[str, str | None] = {}
        if "d_real" in stats:
            found["saturated"] = _saturated(stats)
        if "gradient_norm_g" in stats:
            found["vanished"] = self._vanished(stats["gradient_norm_g"])
        if "diversity" in stats and share_done >= BEGUN:
            found["collapsed"] = _collapsed(stats)
        warnings: list[str] = []
        for kind, text in found.items():
            self._in_a_row[kind] = self._in_a_row.get(kind, 0) + 1 if text else 0
            if not text:
                self._warned.discard(kind)
            patience = 1 if kind == "collapsed" else PATIENCE
            if text and kind not in self._warned and self._in_a_row[kind] >= patience:
                self._warned.add(kind)
                warnings.append(text)
        return warnings

    def _vanished(self, norm: float) -> str | None:
        self._largest_gradient = max(self._largest_gradient, norm)
        if norm > VANISHED * self._largest_gradient:
            return None
        return (
            f"the generator's gradient has vanished: its norm is {norm:.2g}, and was"
            f" {self._largest_gradient:.2g}. D tells it nothing any more; use nonsaturating,"
            " hinge or relativistic in the place of minimax, add r1 or gradient_penalty, lower"
            " D's learning rate, or add instance_noise"
        )


def _saturated(stats: Mapping[str, float]) -> str | None:
    real, fake = stats["d_real"], stats["d_fake"]
    if real < SATURATED or fake > 1 - SATURATED:
        return None
    return (
        f"the discriminator is saturated: D(x) is {real:.4f}, D(G(z)) {fake:.4f}. It is too strong"
        " for G, or knows its images by heart; add r1, spectral_norm or label_smoothing, lower its"
        " learning rate, or, with little data, add ada or diffaugment"
    )


def _collapsed(stats: Mapping[str, float]) -> str | None:
    help_ = (
        "minibatch_stddev or minibatch_discrimination let D see it; relativistic with r1 and r2,"
        " gradient_penalty, or a larger batch prevent it"
    )
    if "modes" in stats and stats["modes"] < stats["num_modes"] / 2:
        return (
            f"the generator has collapsed: it draws {stats['modes']:.0f} of the data's"
            f" {stats['num_modes']:.0f} modes. {help_}"
        )
    if stats["diversity"] < COLLAPSED:
        return (
            "the generator has collapsed: its images differ from each other"
            f" {stats['diversity']:.1%} as much as real ones do. {help_}"
        )
    return None


def diversity(
    fake: NDArray[np.float32], real: NDArray[np.float32], labels: NDArray[np.int64] | None
) -> dict[str, float]:
    """Mean distance between two generated images, over that between two real ones.

    Args:
        fake: (N, ...) generated images. real: as many real ones, on the same scale.
        labels: (N,) of both, or None; distances are then taken within classes.

    Returns:
        {"diversity": of all}, and {"diversity_worst_class"} where there are labels.
    """
    groups = [np.arange(len(fake))] if labels is None else _groups(labels)
    # A class whose real images are all equal has nothing to compare with.
    groups = [g for g in groups if spread(real[g]) > 0]
    ratios = np.array([spread(fake[g]) / spread(real[g]) for g in groups] or [1.0])
    result = {"diversity": float(ratios.mean())}
    if labels is not None:
        result["diversity_worst_class"] = float(ratios.min())
    return result


def spread(images: NDArray[np.float32]) -> float:
    """Root mean square distance between two different images of (N, ...)."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    return float(np.sqrt(2 * flat.var(axis=0, ddof=1).sum()))


def _groups(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    members = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    return [m for m in members if len(m) > 1] or [np.arange(len(labels))]
