"""Where there is no card: engines on the simulated GPU of the tests, whose plans are ONNX files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ganinfer.backends import _tensorrt_library
from ganinfer.backends._tensorrt_library import host_platform
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.backends.tensorrt import TensorRTBackend
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import Engine
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.drawing.latents import draw_labels
from gpu_day.day import Values, check

ROOT = Path(__file__).resolve().parents[2]
PROFILES = [[1, 2, 4], [8, 12, 64]]


@contextmanager
def gpu() -> Iterator[Any]:
    """A process that sees a GPU, sm89, and TensorRT-RTX; its CUDA."""
    sys.path.append(str(ROOT / "tests/ganinfer/backends"))
    import simulated_gpu

    cuda = simulated_gpu.Cuda()
    modules = {
        "cuda.bindings.runtime": cuda,
        "tensorrt_rtx": simulated_gpu.library("tensorrt_rtx", cuda, PROFILES),
    }
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield cuda
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
        _tensorrt_library._loggers.clear()


def an_engine(target: str = "sm89", **changed: Any) -> Engine:
    """The manifest's entry of an engine for the simulated GPU."""
    fields = {
        "path": "engines/simulated.plan",
        "report": "engines/simulated.json",
        "key": "0" * 64,
        "onnx_sha256": "0" * 64,
        "product": "tensorrt_rtx",
        "version": "1.2.3.4",
        "platform": host_platform(),
        "target": target,
        "precision": "fp32",
        "profiles": PROFILES,
        "status": "pending",
    }
    return Engine(**fields | changed)


def engine_against_onnxruntime(path: Path) -> Values:
    """A bundle's fp32 graph as an engine: padded, captured and replayed batches of many sizes."""
    with Bundle(path) as opened:
        graph, model = opened.read_graph("fp32"), opened.manifest.model
    expected = OnnxRuntimeBackend(graph, "cpu", "fp32")
    sizes, same = (1, 2, 3, 8, 20, 64, 3, 64), 0
    with gpu():
        backend = TensorRTBackend(graph, an_engine(), model, "auto")
        try:
            for first, n in enumerate(sizes):
                seeds = range(first, first + n)
                inputs = draw_inputs(model, seeds, draw_labels(seeds, len(model.classes)))
                same += np.array_equal(backend.run(inputs), expected.run(inputs))
            graphs = backend.details["cuda_graphs"]
        finally:
            backend.close()
    return check(
        same == len(sizes) and graphs == "used",
        found=f"{same} of {len(sizes)} batches equal, CUDA graphs {graphs}",
        allowed="all, used",
    )
