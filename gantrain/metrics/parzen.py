"""Parzen-window log-likelihood: Goodfellow et al., 1406.2661, section 5; Breuleux et al.

log p(x) = log (1/N) sum_i N(x; x_i, sigma^2 I), x_i the generated images, pixels on [0, 1]. The
width is chosen on validation images of the training set, and p is then asked for the dataset's
images. The measure is crude in many dimensions (Theis, van den Oord, Bethge, 1511.01844); it is
here because the first papers compare by it.
"""

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.metrics._measured import Measured
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("images",)
BETTER: dict[str, Better] = {"parzen_nats": "higher", "parzen_sigma": None}
NUM_VALIDATION = 1000
SIGMAS = np.logspace(-1.0, 0.0, 21)
_BATCH = 500


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"parzen_nats", "parzen_sigma"}; give a test set as the dataset.

    Mean log-likelihood of the dataset's images in nats, and the width.
    """
    dataset, training = reference.dataset, reference.trained_on or reference.dataset
    if dataset.points is not None:
        raise DataError("parzen: pixels on [0, 1] are expected, and the dataset holds points")
    centres = _flat(fake.images)
    num_pixels = centres.shape[1]
    order = np.random.default_rng(0).permutation(len(training))
    chosen = np.sort(order[:NUM_VALIDATION])
    validation = squared_distances(_flat(training.images[chosen]), centres)
    fits = [log_likelihoods(validation, sigma, num_pixels).mean() for sigma in SIGMAS]
    sigma = float(SIGMAS[int(np.argmax(fits))])
    found = np.concatenate(
        [
            log_likelihoods(
                squared_distances(_flat(dataset.images[i : i + _BATCH]), centres), sigma, num_pixels
            )
            for i in range(0, len(dataset), _BATCH)
        ]
    )
    error = float(found.std(ddof=1) / np.sqrt(len(found)))
    return {"parzen_nats": Score(float(found.mean()), error), "parzen_sigma": Score(sigma)}


def log_likelihoods(
    squared: NDArray[np.float64], sigma: float, num_pixels: int
) -> NDArray[np.float64]:
    """Log p of M images, from their squared distances (M, N) to the N centres."""
    exponents = -squared / (2 * sigma**2)
    largest = exponents.max(axis=1, keepdims=True)
    log_sum = largest[:, 0] + np.log(np.exp(exponents - largest).sum(axis=1))
    normaliser = np.log(squared.shape[1]) + num_pixels / 2 * np.log(2 * np.pi * sigma**2)
    result: NDArray[np.float64] = log_sum - normaliser
    return result


def squared_distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """(M, F), (N, F) -> ||a_i - b_j||^2, (M, N)."""
    products = (a @ b.T).astype(np.float64)
    squares = np.square(a, dtype=np.float64).sum(1)[:, None] + np.square(b, dtype=np.float64).sum(1)
    result: NDArray[np.float64] = np.maximum(squares - 2 * products, 0)
    return result


def _flat(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (N, H, W, C) -> (N, HWC) on [0, 1]."""
    flat: NDArray[np.float32] = np.asarray(images).reshape(len(images), -1).astype(np.float32)
    return flat / np.float32(255)
