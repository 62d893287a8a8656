"""Torch's side of the numeric gates: the network in float64, and its own rounding in float32."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from ganexport.proof.device import images_of
from ganexport.proof.rounding import Allowed, Deviation
from ganexport.subjects.casting import nudged
from ganexport.subjects.contract import LARGE
from ganexport.subjects.subject import Subject
from ganinfer.drawing.inputs import Inputs, draw_inputs

MOST_IMAGES, LEAST_IMAGES = 512, 16  # or one of each class
_LEAST_LARGE_IMAGES = 8  # of more than half a megapixel each
_OPERATIONS = 1.5e11  # in float64, some seconds on two cores
_MOST_BATCH = 64  # the batches that `Sampler` sends
_BATCH_PIXELS = 1 << 20  # for the sake of memory: a hundred channels of so many are 400 MB
_BATCH_PIXELS_IN_FLOAT64 = 1 << 18  # convolutions unfold there, to nine times the size


@dataclass(frozen=True, eq=False)
class Reference:
    """What the network gives for some seeds.

    Attributes:
        inputs: see `probes`. images: float64 (N, C, H, W), before rounding.
        of: "float64", or "float32" and why not more.
        allowed: by how much what ships may differ from them.
    """

    inputs: Inputs
    images: NDArray[np.float64]
    of: str
    allowed: Allowed

    def first(self, num_images: int) -> tuple[Inputs, NDArray[np.float64]]:
        """Of the first seeds."""
        return self.inputs.rows(0, num_images), self.images[:num_images]


@lru_cache(maxsize=2)
@torch.no_grad()
def reference_of(subject: Subject) -> Reference:
    """Draw it; as many seeds as are soon drawn, a fixed number for a network."""
    inputs, _ = probes(subject, num_probes(subject))
    single = run_torch(subject, inputs)
    if subject.precise is not None:
        exact = exact_images(subject, inputs)
        own = Deviation.of(single, exact)
        return Reference(inputs, exact, "float64", Allowed(own))
    # Weights that differ by their last bit say how far float32 may be from what they stand for.
    other = run_torch(dataclasses.replace(subject, network=nudged(subject.network)), inputs)
    reason = "it holds more than 2 GB" if subject.is_large else "its forward stays in no float64"
    allowed = Allowed(Deviation.of(other, single))
    return Reference(inputs, single.astype(np.float64), f"float32, as {reason}", allowed)


@torch.no_grad()
def exact_images(subject: Subject, inputs: Inputs) -> NDArray[np.float64]:
    """What the network stands for, (N, C, H, W) before rounding; in float32 if it has no more."""
    if subject.precise is None:
        return run_torch(subject, inputs).astype(np.float64)
    parts = batches(subject, inputs, most_pixels=_BATCH_PIXELS_IN_FLOAT64)
    return np.concatenate([images_of(subject, part, torch.float64).numpy() for part in parts])


def num_probes(subject: Subject) -> int:
    """How many seeds the numeric gates look at: fewer of a network that takes long."""
    most = max(MOST_IMAGES, subject.num_classes)
    height, width, _ = subject.model.shape
    least = _LEAST_LARGE_IMAGES if height * width > LARGE else LEAST_IMAGES
    return int(min(most, max(least, _OPERATIONS / operations(subject))))


@lru_cache(maxsize=2)
def operations(subject: Subject) -> float:
    """Floating-point operations of torch for one image, those of convolutions and products."""
    inputs, _ = probes(subject, 1)
    with FlopCounterMode(display=False) as counter:
        run_torch(subject, inputs)
    return max(1.0, float(counter.get_total_flops()))


def probes(subject: Subject, num_images: int) -> tuple[Inputs, list[float | None]]:
    """Inputs that show all a generator can do, of more images the same ones and others.

    Each class once before any comes again, those that follow each other far apart; and, if it takes
    a truncation, none for half of the seeds and five values over its range for the others.

    Returns:
        The inputs for the seeds 0, 1, ..., and the truncation of each; None asks for none.
    """
    model, taken = subject.model, subject.model.truncation_input
    asked: list[float | None] = [None] * num_images
    if taken is not None:
        values = np.linspace(taken.least, taken.untruncated, 6)[:-1].round(3)
        for n in range(num_images):
            if n.bit_count() % 2:  # half of any seeds, and of any class's
                asked[n] = float(values[n % len(values)])
    y = None
    if count := subject.num_classes:
        y = np.arange(num_images) * _step(count) % count
    parts = [
        draw_inputs(model, [n], None if y is None else y[n : n + 1], truncation)
        for n, truncation in enumerate(asked)
    ]
    return Inputs.joined(parts), asked


def _step(count: int) -> int:
    """That comes to each of so many places: one by one, or of many by about 0.62 of them."""
    step = max(1, round(count * (math.sqrt(5) - 1) / 2)) if count > LEAST_IMAGES else 1
    while math.gcd(step, count) > 1:
        step += 1
    return step


@torch.no_grad()
def run_torch(subject: Subject, inputs: Inputs) -> NDArray[np.float32]:
    """The network itself in float32 on the CPU: (N, C, H, W), before rounding."""
    return np.concatenate([subject(part).numpy() for part in batches(subject, inputs)])


def drawn_by_torch(subject: Subject, inputs: Inputs) -> NDArray[np.float32]:
    """The same, by what draws fastest here: for sets of images, not for their last digits."""
    parts = batches(subject, inputs)
    return np.concatenate([images_of(subject, part, torch.float32).numpy() for part in parts])


def batches(
    subject: Subject, inputs: Inputs, *, most_pixels: int = _BATCH_PIXELS
) -> Iterator[Inputs]:
    """The batches that torch and backends are given: 64 images, fewer of large ones."""
    pixels = math.prod(subject.model.image_shape(1)[1:3])
    size = max(1, min(_MOST_BATCH, most_pixels // pixels))
    return (inputs.rows(start, start + size) for start in range(0, len(inputs), size))
