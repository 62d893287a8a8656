"""Distance between power spectra (Durall, Keuper, Keuper, 2003.01826).

The spectrum of an image is the mean of |FFT|^2 over rings of equal spatial frequency; upsampling
leaves its marks in the high ones. The distance is the root mean square, over the rings, between the
mean log-spectra of generated and real images, in dB.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.metrics._measured import Measured
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("images",)
BETTER: dict[str, Better] = {"spectral_distance": "lower"}

Floats = NDArray[np.float64]


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"spectral_distance"}: in dB, 0 for equal mean spectra; lower is better."""
    if reference.dataset.points is not None:
        raise DataError("spectral_distance: it needs images, and the dataset holds points")
    (real, _), (generated, spread) = (
        mean_spectrum(side.stream("images")) for side in (reference.real, fake)
    )
    difference = generated - real
    distance = float(np.sqrt(np.mean(difference**2)))
    # Of a root mean square of differences that are each known to a standard error.
    error = np.sqrt(np.mean((difference * spread) ** 2)) / max(distance, 1e-12)
    return {"spectral_distance": Score(distance, float(error / np.sqrt(len(difference))))}


def mean_spectrum(batches: Iterable[NDArray[np.uint8]]) -> tuple[Floats, Floats]:
    """Mean over images of the log power in each ring, in dB, and its standard error; (R,)."""
    found = np.concatenate([spectra(batch) for batch in batches])
    return found.mean(axis=0), found.std(axis=0) / len(found) ** 0.5


def spectra(images: NDArray[np.uint8]) -> Floats:
    """uint8 (N, H, W, C) -> power in R rings, dB, (N, R).

    Their frequencies are 1, 2, ..., R periods over the shorter side, up to half its pixels.
    """
    grey = images.astype(np.float64).mean(axis=3) / 255
    power = np.abs(np.fft.fft2(grey)) ** 2
    height, width = grey.shape[1:]
    side = min(height, width)
    down, right = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    ring = np.rint(np.hypot(down, right) * side).astype(int)
    rings = [power[:, ring == radius].mean(axis=1) for radius in range(1, side // 2 + 1)]
    return 10 * np.log10(np.stack(rings, axis=1) + 1e-12)
