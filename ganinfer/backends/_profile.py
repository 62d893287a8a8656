"""What a runtime's own profiler tells of a run: its kernels, and how long each took."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.inputs import Inputs

_MOST_RUNS = 200


@dataclass(frozen=True)
class Kernel:
    """What a runtime runs as one piece.

    Attributes:
        name: the runtime's own, of which there is one.
        nodes: names of nodes and tensors of the graph that it does the work of, as they are, or
            with what the runtime added; none of a copy that it put in.
        feeds: names of the kernels that take what this one gives.
        kind: which kernel, as the runtime calls it: "Conv nchwc", "brgconv_avx512".
        type: it computes in: "fp32", "bf16", "fp16", "int8", or what the runtime calls it.
        moves: it computes nothing: a copy, another layout, another type.
        num_bytes: what it reads, weights too, and writes.
    """

    name: str
    nodes: tuple[str, ...]
    feeds: tuple[str, ...]
    kind: str
    type: str
    moves: bool
    num_bytes: int


@dataclass(frozen=True)
class Profile:
    """Several runs of one batch.

    Attributes:
        kernels: in the order in which they run.
        seconds: float64 (R, kernels); each row is of one run, or the mean of several.
        run_seconds: float64 (R,), of the same as their caller sees it, the profiler being on.
    """

    kernels: tuple[Kernel, ...]
    seconds: NDArray[np.float64]
    run_seconds: NDArray[np.float64]


@runtime_checkable
class Profiled(Protocol):
    """A backend that can tell where its time goes."""

    def profile(self, inputs: Inputs, *, seconds: float) -> Profile:
        """Run a batch again and again, with all threads and the profiler on.

        Args:
            inputs: a batch.
            seconds: for about how long, after two runs that do not count.

        Raises:
            BackendUnavailable: it has no profiler for this device.
        """


def repeat(
    run: Callable[[], object], seconds: float, *, least: int = 4, warm_up: int = 2
) -> NDArray[np.float64]:
    """Seconds of each of repeated runs, after some that do not count."""
    for _ in range(warm_up):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or (time.perf_counter() < end and len(times) < _MOST_RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return np.array(times)
