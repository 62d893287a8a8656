"""OpenVINO's profiler: the time of every node of the model that it really runs."""

import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends._profile import Kernel, Profile, repeat

_LEAST_BLOCKS, _MOST_BLOCKS = 2, 8
_TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_MOVES = {"Convert", "FakeQuantize", "Reorder", "Reshape", "Transpose"}
_NO_KERNELS = {"Const", "Input", "Output"}


def profile(compiled: Callable[[], Any], infer: Callable[[Any], object], seconds: float) -> Profile:
    """Run a model that is compiled with PERF_COUNT.

    It tells each node's mean since it was compiled, in whole microseconds. So a row of the profile
    is the mean of several runs, and for each row it is compiled anew.

    Args:
        compiled: compiles it. infer: runs one of its requests.
        seconds: for about how long.
    """
    rows: list[NDArray[np.float64]] = []
    row_seconds: list[float] = []
    end = time.perf_counter() + seconds
    while len(rows) < _LEAST_BLOCKS or (time.perf_counter() < end and len(rows) < _MOST_BLOCKS):
        model = compiled()
        request = model.create_infer_request()
        run = functools.partial(infer, request)
        repeat(run, 0.0, least=2, warm_up=0)
        before = _totals(request, 2)
        times = repeat(run, seconds / _MOST_BLOCKS, warm_up=0)
        after = _totals(request, 2 + len(times))
        kernels = _kernels(model)  # by now it knows its shapes
        spent = [after.get(k.name, 0.0) - before.get(k.name, 0.0) for k in kernels]
        rows.append(np.array(spent) / len(times))
        row_seconds.append(float(times.mean()))
    return Profile(kernels, np.maximum(rows, 0.0), np.array(row_seconds))


def _totals(request: Any, num_runs: int) -> dict[str, float]:
    """Seconds of each node in all runs of a request; 0 of what does not run."""
    totals: dict[str, float] = {}
    for node in request.get_profiling_info():
        mean = node.real_time.total_seconds()
        total = num_runs * (mean + 0.5e-6) if mean else 0.0  # the mean was rounded down
        totals[node.node_name] = totals.get(node.node_name, 0.0) + total
    return totals


def _kernels(compiled: Any) -> tuple[Kernel, ...]:
    """In the order in which they run."""
    operations = compiled.get_runtime_model().get_ordered_ops()
    told = {op.friendly_name: _told(op) for op in operations}
    ran = [op for op in operations if told[op.friendly_name]["layerType"] not in _NO_KERNELS]
    ran.sort(key=lambda op: int(told[op.friendly_name]["execOrder"]))
    return tuple(_kernel(op, told) for op in ran)


def _told(operation: Any) -> dict[str, str]:
    return {key: str(value.value) for key, value in operation.get_rt_info().items()}


def _kernel(operation: Any, told: Mapping[str, Mapping[str, str]]) -> Kernel:
    own = told[operation.friendly_name]
    outputs = operation.outputs()
    width = outputs[0].get_element_type().size
    num_bytes = sum(output.get_element_type().size * _count(output) for output in outputs)
    for taken in operation.inputs():
        size, source = taken.get_element_type().size, taken.get_source_output().get_node()
        if told[source.friendly_name]["layerType"] == "Const":
            size = min(size, width)  # it is told as it was written, and kept as it is used
        num_bytes += size * _count(taken)
    takers = [taker.get_node() for output in outputs for taker in output.get_target_inputs()]
    kernel = own["primitiveType"].rpartition("_")[0]
    return Kernel(
        name=operation.friendly_name,
        nodes=tuple(filter(None, own["originalLayersNames"].split(","))),
        feeds=tuple(taker.friendly_name for taker in takers),
        kind=" ".join([own["layerType"], kernel] if kernel != "unknown" else [own["layerType"]]),
        type=_TYPES.get(own["runtimePrecision"], own["runtimePrecision"]),
        moves=own["layerType"] in _MOVES,
        num_bytes=num_bytes,
    )


def _count(tensor: Any) -> int:
    """Of numbers in a tensor; none are known of one that has not been run."""
    shape = tensor.get_partial_shape()
    return math.prod(shape.to_shape()) if shape.is_static else 0
