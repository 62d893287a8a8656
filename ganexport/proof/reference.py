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

from ganexport.proof.rounding import Allowed, Deviation
from ganexport.subjects.casting import nudged
from ganexport.subjects.subject import Subject
from ganinfer.drawing.inputs import Inputs, draw_inputs

MOST_IMAGES, LEAST_IMAGES = 512, 16
_OPERATIONS = 1.5e11  # in float64, some seconds on two cores
_MOST_BATCH = 64  # the batches that `Sampler` sends
_BATCH_PIXELS = 1 << 22  # a batch's memory: some hundred channels at the full size


@dataclass(frozen=True, eq=False)
class Reference:
    """What the network gives for some seeds.

    Attributes:
        inputs: see `probes`. images: float64 (N, C, H, W), before rounding.
        in_float64: False for a network whose forward does not stay in float64; then float32.
        allowed: by how much what ships may differ from them.
    """

    inputs: Inputs
    images: NDArray[np.float64]
    in_float64: bool
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
        return Reference(inputs, exact, True, Allowed(own))
    # Weights that differ by their last bit say how far float32 may be from what they stand for.
    other = run_torch(dataclasses.replace(subject, network=nudged(subject.network)), inputs)
    return Reference(inputs, single.astype(np.float64), False, Allowed(Deviation.of(other, single)))


@torch.no_grad()
def exact_images(subject: Subject, inputs: Inputs) -> NDArray[np.float64]:
    """What the network stands for, (N, C, H, W) before rounding; in float32 if it has no more."""
    draw = subject if subject.precise is None else subject.precisely
    parts = [draw(part).numpy() for part in batches(subject, inputs)]
    return np.concatenate(parts).astype(np.float64)


def num_probes(subject: Subject) -> int:
    """How many seeds the numeric gates look at: fewer of a network that takes long."""
    return int(min(MOST_IMAGES, max(LEAST_IMAGES, _OPERATIONS / operations(subject))))


@lru_cache(maxsize=2)
def operations(subject: Subject) -> float:
    """Floating-point operations of torch for one image, those of convolutions and products."""
    inputs, _ = probes(subject, 1)
    with FlopCounterMode(display=False) as counter:
        run_torch(subject, inputs)
    return max(1.0, float(counter.get_total_flops()))


def probes(subject: Subject, num_images: int) -> tuple[Inputs, list[float | None]]:
    """Inputs that show all a generator can do: each class in turn, and, if it takes a truncation,
    none for the first half of the seeds and five values over its range for the others.

    Returns:
        The inputs for the seeds 0, 1, ..., and the truncation of each; None asks for none.
    """
    model, taken = subject.model, subject.model.truncation_input
    asked: list[float | None] = [None] * num_images
    if taken is not None:
        values = np.linspace(taken.least, taken.untruncated, 6)[:-1].round(3)
        for n in range(num_images // 2, num_images):
            asked[n] = float(values[n % len(values)])
    y = np.arange(num_images) % subject.num_classes if subject.num_classes else None
    parts = [
        draw_inputs(model, [n], None if y is None else y[n : n + 1], truncation)
        for n, truncation in enumerate(asked)
    ]
    return Inputs.joined(parts), asked


@torch.no_grad()
def run_torch(subject: Subject, inputs: Inputs) -> NDArray[np.float32]:
    """The network itself in float32: (N, C, H, W), before rounding."""
    return np.concatenate([subject(part).numpy() for part in batches(subject, inputs)])


def batches(subject: Subject, inputs: Inputs) -> Iterator[Inputs]:
    """The batches that torch and backends are given: 64 images, fewer of large ones."""
    pixels = math.prod(subject.model.image_shape(1)[1:3])
    size = max(1, min(_MOST_BATCH, _BATCH_PIXELS // pixels))
    return (inputs.rows(start, start + size) for start in range(0, len(inputs), size))
