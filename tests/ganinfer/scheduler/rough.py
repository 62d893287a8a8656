"""What the tests of statistics and traces share."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs, draw_inputs
from ganinfer.errors import BackendUnavailable
from ganinfer.scheduler.batching import Batcher
from ganinfer.scheduler.request import Request
from ganinfer.scheduler.stats import Stats
from ganinfer.scheduler.tracing import OpenTelemetry


class Rough(OnnxRuntimeBackend):
    """The real backend, that takes its time, can be held, and fails whoever asks for nan."""

    def __init__(self, bundle: Bundle, parallel_runs: int) -> None:
        super().__init__(bundle.read_graph("fp32"), "cpu", "fp32")
        self.model, self.parallel_runs = bundle.manifest.model, parallel_runs
        self.entered, self.gate = threading.Semaphore(0), threading.Event()
        self.gate.set()

    def run(self, inputs: Inputs, *, out: Images | None = None, alone: bool = True) -> Images:
        self.entered.release()
        assert self.gate.wait(60)
        time.sleep(0.002)
        if np.isnan(inputs.z).any():
            raise BackendUnavailable("the device cannot stand this latent")
        return super().run(inputs, out=out, alone=alone)

    def request(self, n: int, *, fails: bool = False, deadline: float | None = None) -> Request:
        inputs = draw_inputs(self.model, range(n), np.arange(n) % 3)
        if fails:
            inputs.z[0] = np.nan
        return Request(inputs, np.zeros((n, 16, 16, 3), np.uint8), deadline=deadline)


@contextmanager
def rough_batcher(
    path: Path,
    stats: Stats,
    *,
    parallel_runs: int = 1,
    max_queue: int = 8,
    tracer: Any = None,
) -> Iterator[tuple[Rough, Batcher]]:
    """A batcher of four images at most, and its backend."""
    with Bundle(path) as bundle:
        backend = Rough(bundle, parallel_runs)
        tracing = OpenTelemetry(tracer, bundle.sha256, [backend]) if tracer else None
    batcher = Batcher(
        [backend],
        Inputs.joined,
        largest=4,
        max_queue=max_queue,
        max_queue_images=40,
        max_wait_ms=0,
        stats=stats,
        tracing=tracing,
    )
    try:
        yield backend, batcher
    finally:
        backend.gate.set()
        batcher.close()
        backend.close()
