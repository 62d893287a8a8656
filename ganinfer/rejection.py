"""Rejection sampling by the discriminator: what it takes for generated is likely drawn again.

Azadi, Olsson, Darrell, Goodfellow, Odena: Discriminator rejection sampling, 1810.06758. With
r(x) = log p(x) / q(x), of the data over the generator, and M its maximum over a burn-in, x is
accepted with probability

    sigmoid(F(x)),  F(x) = r(x) - M - log(1 - exp(r(x) - M - eps)) - gamma.

gamma = 0 is exact rejection sampling, exp(r - M); gamma at a percentile of F accepts more. r is the
logit of D after a logistic regression on real and generated images, so D may be any critic; its
offset is that of the class, so that no class drives out another.
"""

from collections.abc import Iterator, Mapping
from itertools import count

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends.onnxruntime import FeatureNetwork
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.arguments import Label, gives_each
from ganinfer.drawing.images import Images
from ganinfer.drawing.latents import Seeds, draw_labels, draw_uniforms, seed_array
from ganinfer.errors import BundleError, RequestError
from ganinfer.sampler import Sampler

EPSILON = 1e-8

Floats = NDArray[np.float64]


class Judge:
    """A bundle's discriminator, on the CPU."""

    def __init__(self, bundle: Bundle) -> None:
        """Load it.

        Raises:
            RequestError: the bundle has none.
            BundleError: what the manifest says of it does not fit the model.
            BackendUnavailable: onnxruntime is not installed, or refuses the graph.
        """
        entry = bundle.manifest.discriminator
        if entry is None:
            raise RequestError(
                f"{bundle.path}: holds no discriminator to accept or reject images by; export it"
                " again with: gan export RUN --with-discriminator"
            )
        if len(entry.offsets) != max(1, len(bundle.manifest.model.classes)):
            raise BundleError(
                f"{bundle.path}: {entry.path}: its offsets do not fit the model; export it again"
            )
        self._entry, self._offsets = entry, np.array(entry.offsets)
        self._network = FeatureNetwork(bundle.read_onnx(entry.path))

    def log_ratio(self, images: Images, y: NDArray[np.int64] | None) -> Floats:
        """The log ratio r of images uint8 (N, H, W, C) and their classes (N,), float64 (N,)."""
        logits = self._network(images, y).astype(np.float64)
        ratio: Floats = self._entry.scale * logits + self._offsets[0 if y is None else y]
        return ratio

    def probability(self, images: Images, y: NDArray[np.int64] | None, percentile: float) -> Floats:
        """That images are accepted, float64 (N,); gamma is that percentile of F."""
        burn_in = np.array(self._entry.quantiles)
        # F rises with r, so a percentile of F is F at that percentile of r.
        at = np.interp([percentile], np.linspace(0, 100, len(burn_in)), burn_in)
        excess = _f(self.log_ratio(images, y), burn_in[-1]) - _f(at, burn_in[-1])
        probability: Floats = np.exp(-np.logaddexp(0, -excess))  # sigmoid, without overflow
        return probability


def accepted(
    sampler: Sampler,
    n: int,
    *,
    seed: int = 0,
    labels: Label | None = None,
    truncation: float | None = None,
    percentile: float = 80.0,
    batch_size: int = 64,
    tries: int = 100,
) -> tuple[Images, Seeds]:
    """Draw images until the discriminator has accepted n.

    Whether an image is accepted depends on its seed alone, so these are the first n accepted seeds
    of seed, seed + 1, ..., whatever the batch size is.

    Args:
        sampler: of a bundle that was exported with its discriminator.
        n: how many.
        seed: the first that is tried.
        labels: one class for all images; None lets each seed draw its own.
        truncation: as in `Sampler.sample`; the burn-in was drawn without one.
        percentile: of F over the burn-in where half of the images are accepted; 0 to 100.
        batch_size: images that are drawn at once.
        tries: images that are drawn for each that is wanted, at most.

    Returns:
        uint8 (n, H, W, C), and their seeds uint64 (n,).

    Raises:
        RequestError: the bundle has no discriminator, n are not accepted in so many tries, or
            something that the model cannot serve.
    """
    if n < 0 or batch_size < 1:
        raise RequestError(f"n {n}, batch_size {batch_size}: expected 0 and 1, or more")
    if not 0 <= percentile <= 100:
        raise RequestError(f"percentile: found {percentile}; expected 0 to 100")
    judge = Judge(sampler.bundle)
    kept: list[tuple[Images, Seeds]] = []
    found = drawn = 0
    for keys in _batches(seed, batch_size):
        if found >= n:
            break
        if drawn >= tries * n:
            raise RequestError(
                f"accepted {found} of {drawn} images, {n} are wanted: this discriminator rejects"
                " nearly all; lower percentile, or allow more tries"
            )
        y = _classes(sampler, keys, labels)
        images = sampler.sample(seeds=keys, labels=y, truncation=truncation)
        accept = draw_uniforms(keys) < judge.probability(images, y, percentile)
        kept.append((images[accept], keys[accept]))
        found, drawn = found + int(accept.sum()), drawn + len(keys)
    if not kept:
        return sampler.sample(0), seed_array([])
    return np.concatenate([i for i, _ in kept])[:n], np.concatenate([k for _, k in kept])[:n]


def _f(r: Floats, largest: float) -> Floats:
    """F before gamma is taken off; what lies above the burn-in counts as its maximum."""
    below = np.minimum(r - largest, 0.0)
    f: Floats = below - np.log(-np.expm1(below - EPSILON))
    return f


def _batches(seed: int, batch_size: int) -> Iterator[Seeds]:
    return (seed_array(range(start, start + batch_size)) for start in count(seed, batch_size))


def _classes(sampler: Sampler, keys: Seeds, label: Label | None) -> NDArray[np.int64] | None:
    if label is None:
        return draw_labels(keys, len(sampler.classes)) if sampler.classes else None
    if not sampler.classes or gives_each(label) or isinstance(label, Mapping):
        knows = "one class" if sampler.classes else "None: this model has no classes"
        raise RequestError(f"labels {label!r}: the discriminator takes {knows}")
    return np.full(len(keys), sampler.number_of(label))
