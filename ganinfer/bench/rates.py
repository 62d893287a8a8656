"""What the machine can do: multiply-adds a second in each precision, and bytes a second.

The product of two matrices is run by the very backend that runs a bundle, and timed by the same
profiler; so a share of it is a share of what this backend is known to reach here.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends._base import Backend
from ganinfer.backends._profile import Profiled
from ganinfer.bench.product import product
from ganinfer.drawing.inputs import Inputs
from ganinfer.host.limits import usable_cpus, usable_memory

MATRIX_SIZE = 2048  # in float32 three of them, 48 MiB, are more than most caches hold
_COPIED_BYTES = 256 << 20


@dataclass(frozen=True)
class Rates:
    """Of the machine: multiply-accumulates in a precision by a backend, and a big copy.

    Attributes:
        gmacs_per_s: 10^9 multiply-accumulates a second; see `product_gmacs_per_s`.
        gb_per_s: 10^9 bytes a second, read and written; see `copy_gb_per_s`.
    """

    gmacs_per_s: float
    gb_per_s: float

    def least_seconds(self, macs: int, num_bytes: int) -> float:
        """What so much work takes at these rates, both going on at once."""
        return max(macs / self.gmacs_per_s, num_bytes / self.gb_per_s) / 1e9


def rates_of(backend: str, precision: str, seconds: float) -> Rates | None:
    """Both rates, each measured for about so many seconds; None where products cannot be."""
    gmacs = product_gmacs_per_s(backend, precision, seconds)
    return None if gmacs is None else Rates(gmacs, copy_gb_per_s(seconds))


def best(measured: Sequence[Rates | None]) -> Rates | None:
    """Of several measurements on one machine; None if any is."""
    known = [rates for rates in measured if rates is not None]
    if len(known) < len(measured):
        return None
    return Rates(max(r.gmacs_per_s for r in known), max(r.gb_per_s for r in known))


def product_gmacs_per_s(backend: str, precision: str, seconds: float) -> float | None:
    """10^9 multiply-accumulates a second of 2048 x 2048 matrices, all threads; the best of several.

    In fp16, int8 and, by OpenVINO, bf16, if that is the precision; else in float32.

    Args:
        backend: one of ours. precision: of a bundle.
        seconds: about how long it is measured.

    Returns:
        None of a backend whose rate on the CPU cannot be measured so.
    """
    matrix = np.random.default_rng(0).standard_normal((MATRIX_SIZE,) * 2, dtype=np.float32)
    opened = _opened(backend, precision, matrix)
    if opened is None:
        return None
    assert isinstance(opened, Profiled)
    z: Any = matrix.astype(np.float16) if precision == "fp16" else matrix
    found = opened.profile(Inputs(z), seconds=seconds)
    opened.close()
    return float(MATRIX_SIZE**3 / found.seconds.max(axis=1).min() / 1e9)


def copy_gb_per_s(seconds: float) -> float:
    """10^9 bytes a second, read and written, of a big copy by all threads; the best of several."""
    size = min(_COPIED_BYTES, usable_memory() // 8)
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    threads, best = usable_cpus(), np.inf
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    end = time.perf_counter() + seconds
    with ThreadPoolExecutor(threads) as pool:
        for number in range(1000):
            began = time.perf_counter()
            list(pool.map(lambda part: np.copyto(*part), parts))
            best = min(best, time.perf_counter() - began)
            if number >= 2 and time.perf_counter() > end:
                break
    return 2 * size / best / 1e9


def _opened(backend: str, precision: str, weight: NDArray[np.float32]) -> Backend | None:
    """A product by a backend, which takes its left side as z."""
    graph = product(precision, weight)
    if backend == "openvino":
        from ganinfer.backends.openvino import OpenVINOBackend, new_core

        return OpenVINOBackend(graph, precision, new_core())
    if backend == "onnxruntime":
        from ganinfer.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(graph, "cpu", precision)
    return None
