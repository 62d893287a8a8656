"""Learning-rate schedules by name: one function each, and its keyword-only arguments its schema.

schedule(images_seen, total_images) -> the factor of both learning rates. A schedule is a function
of the images seen alone, so that a run which goes on does not begin its schedule again.
"""

import math
from typing import Annotated

from pydantic import Field

Kimg = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


def constant(images_seen: int, total_images: int, *, warmup_kimg: Kimg = 0.0) -> float:
    """1, after a linear rise over warmup_kimg."""
    del total_images
    return _warmup(images_seen, warmup_kimg)


def linear(
    images_seen: int,
    total_images: int,
    *,
    start_kimg: Kimg = 0.0,
    final: Share = 0.0,
    warmup_kimg: Kimg = 0.0,
) -> float:
    """1 until start_kimg, then a straight line to `final` at the end (WGAN-GP, SNGAN)."""
    share = _share(images_seen, total_images, start_kimg)
    return _warmup(images_seen, warmup_kimg) * (1 + (final - 1) * share)


def cosine(
    images_seen: int,
    total_images: int,
    *,
    start_kimg: Kimg = 0.0,
    final: Share = 0.0,
    warmup_kimg: Kimg = 0.0,
) -> float:
    """1 until start_kimg, then half a cosine to `final` at the end (R3GAN)."""
    share = _share(images_seen, total_images, start_kimg)
    factor = final + (1 - final) * (1 + math.cos(math.pi * share)) / 2
    return _warmup(images_seen, warmup_kimg) * factor


def _share(images_seen: int, total_images: int, start_kimg: float) -> float:
    """How much of the way from start_kimg to the end is behind us."""
    start = 1000 * start_kimg
    return min(max((images_seen - start) / max(total_images - start, 1), 0.0), 1.0)


def _warmup(images_seen: int, warmup_kimg: float) -> float:
    # The first step is not lost to a rate of 0.
    return min((images_seen + 1) / (1000 * warmup_kimg), 1.0) if warmup_kimg else 1.0
