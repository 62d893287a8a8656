"""One model of rounding, from which all limits on pixels follow.

A format of p binary digits makes a relative error of at most u = 2^-p in every result (Higham,
Accuracy and Stability of Numerical Algorithms, section 2.2). A network takes it to its pixels
enlarged by some factor A, which is the network's own and, to first order, the same in all formats:

    error of the pixels = A u.

Torch's float32 against float64, on the images that are looked at, gives A; so the error that a
right export has in another order of summation, or in half precision, is known beforehand, and a
limit is a small multiple of it. docs/exporting.md has the measured multiples.

What a format does to the images a network is *good enough* for is another question: below
`LEAST_PSNR_DB` a variant is right and yet not worth having.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganinfer.bundle.manifest import PixelLimits, Precision
from ganinfer.drawing.images import to_uint8

UNIT_ROUNDOFF: dict[Precision, float] = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
# Of the error that the model foretells; twenty right networks came to 1.1 at most in fp32, 0.7 in
# fp16 and bf16, where sums are kept in float32 and only their results are rounded.
MOST_TIMES: dict[Precision, float] = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0}
MOST_TIMES_LARGEST = 8.0  # of fp32, of the single value that is farthest off
LEAST_PSNR_DB: dict[Precision, float] = {"fp16": 55.0, "bf16": 40.0, "int8": 35.0, "fp8": 35.0}
WORST_IMAGE_DB = 10.0  # that the worst image may lie below all together
_STEPS = 127.5  # of uint8, in 1 on [-1, 1]
_SHARE_BY_CHANCE = 1e-3  # of pixels off: few pixels, and upsampling makes many of one
# Images that are constant, or saturated, may be without error in torch. A pixel near 1 is half a
# last digit off all the same, on average over formats and libraries; tanh, one and more.
_LEAST_RMS, _LEAST_LARGEST = 2.0**-25, 2.0**-24


@dataclass(frozen=True)
class Deviation:
    """How far images on [-1, 1], cut off there, are from those of float64.

    Attributes:
        squares: mean squared error of each image, (N,). largest, mean: absolute.
    """

    squares: NDArray[np.float64]
    largest: float
    mean: float

    @classmethod
    def of(cls, found: NDArray[np.floating], expected: NDArray[np.floating]) -> "Deviation":
        """Of images (N, C, H, W); what is no number counts as infinitely far."""
        squares, means, largest = [], [], 0.0
        for one, other in zip(found, expected, strict=True):  # float64 copies of one at a time
            error = np.abs(one.clip(-1, 1).astype(np.float64) - other.clip(-1, 1))
            error = np.where(np.isnan(error), np.inf, error)
            squares.append(float(np.mean(error**2)))
            means.append(float(error.mean()))
            largest = max(largest, float(error.max()))
        return cls(np.array(squares), largest, float(np.mean(means)))

    @property
    def rms(self) -> float:
        """Root mean square over all values."""
        return math.sqrt(float(np.mean(self.squares)))

    @property
    def worst(self) -> float:
        """The largest root mean square of an image."""
        return math.sqrt(float(self.squares.max()))


@dataclass(frozen=True)
class Allowed:
    """What the images of a network may differ by from its own in float64.

    own: how far torch's float32 is.
    """

    own: Deviation

    def foretold(self, precision: Precision) -> float:
        """The root mean square error that the model foretells for fp32, fp16 or bf16."""
        times = UNIT_ROUNDOFF[precision] / UNIT_ROUNDOFF["fp32"]
        return max(self.own.rms, _LEAST_RMS) * times

    @property
    def largest(self) -> float:
        """The largest error of any value in fp32."""
        return MOST_TIMES_LARGEST * max(self.own.largest, _LEAST_LARGEST)

    def least_psnr_db(self, precision: Precision) -> float:
        """On [-1, 1], peak 2; the stricter of what is right and what is good enough."""
        bars = [LEAST_PSNR_DB[precision]] if precision in LEAST_PSNR_DB else []
        if precision in MOST_TIMES:
            bars.append(psnr_db(MOST_TIMES[precision] * self.foretold(precision)))
        return max(bars)

    def pixels(self, precision: Precision) -> PixelLimits:
        """Of a set of uint8 images; in fp32 from the model, else of the worst image."""
        if precision == "fp32":
            # A pixel is off where a rounding boundary lies within its error.
            share = _SHARE_BY_CHANCE + MOST_TIMES["fp32"] * _STEPS * self.own.mean
            return PixelLimits(
                max_steps=1 + math.floor(_STEPS * self.largest), max_share=min(1.0, share)
            )
        return PixelLimits(
            min_psnr_db=least_uint8_psnr_db(LEAST_PSNR_DB[precision] - WORST_IMAGE_DB)
        )


def psnr_db(rms: float) -> float:
    """PSNR on [-1, 1], peak 2, of a root mean square error."""
    return math.inf if rms == 0 else -20 * math.log10(rms / 2)


def least_uint8_psnr_db(least_psnr_db: float) -> float:
    """PSNR of uint8 images, peak 255, that images of a PSNR on [-1, 1] reach in any case.

    Rounding both adds a quarter of a squared step on average, and half of one where values lie on
    a boundary, as zeros do.
    """
    steps = _STEPS * 2 * 10 ** (-least_psnr_db / 20)
    return 10 * math.log10(255**2 / (steps**2 + 0.5))


def uint8_images(images: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Pixels (N, H, W, C) of images (N, C, H, W) on [-1, 1]."""
    return to_uint8(images).transpose(0, 2, 3, 1)
