"""TensorRT's profiler and inspector: the time of every layer of an engine. No GPU has run this."""

import json
import math
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ganinfer.backends._profile import Kernel, Profile, repeat

_TYPES = {"Half": "fp16", "FP16": "fp16", "BF16": "bf16", "Int8": "int8", "FP8": "fp8"}
_SIZES = {"fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}  # bytes of a number; else 4
_MOVES = {"Cast", "NoOp", "Reformat", "Shuffle"}


def profile(
    trt: ModuleType, context: Any, run: Callable[[], object], seconds: float, information: str
) -> Profile:
    """Run an execution context with a profiler.

    Args:
        trt: TensorRT. context: that `run` runs, and waits for.
        run: a batch, without a CUDA graph.
        seconds: for about how long.
        information: the EngineInspector's JSON.
    """
    runs: list[dict[str, float]] = []

    class Times(trt.IProfiler):  # type: ignore[misc, name-defined]
        """Keeps what it is told of the run that goes on."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            runs[-1][layer_name] = runs[-1].get(layer_name, 0.0) + float(ms) / 1000

    def run_anew() -> None:
        runs.append({})
        run()

    profiler = Times()  # which stays alive as long as it is called
    context.profiler = profiler
    run_seconds = repeat(run_anew, seconds)
    kernels = _kernels(information)
    counted = runs[-len(run_seconds) :]
    found = np.array([[times.get(k.name, 0.0) for k in kernels] for times in counted])
    return Profile(kernels, found, run_seconds)


def _kernels(information: str) -> tuple[Kernel, ...]:
    layers = json.loads(information)["Layers"]
    takers: dict[str, list[str]] = {}
    for layer in layers:
        for tensor in layer.get("Inputs", ()):
            takers.setdefault(tensor["Name"], []).append(layer["Name"])
    return tuple(_kernel(layer, takers) for layer in layers)


def _kernel(layer: Mapping[str, Any], takers: Mapping[str, list[str]]) -> Kernel:
    outputs, kind = layer.get("Outputs", ()), layer.get("LayerType", "")
    return Kernel(
        name=layer["Name"],
        nodes=tuple(re.findall(r"\[ONNX Layer: ([^\]]+)\]", layer.get("Metadata", ""))),
        feeds=tuple(taker for tensor in outputs for taker in takers.get(tensor["Name"], ())),
        kind=" ".join(filter(None, [kind, layer.get("TacticName", "")])),
        type=_type(layer.get("Inputs", outputs)[0]) if outputs else "",
        moves=kind in _MOVES,
        num_bytes=sum(map(_num_bytes, [*layer.get("Inputs", ()), *outputs])),
    )


def _type(tensor: Mapping[str, Any]) -> str:
    # TensorRT 10 tells format and type in one field, 11 in two.
    told = str(tensor.get("DataType") or tensor.get("Format/Datatype", ""))
    return next((name for key, name in _TYPES.items() if key in told), "fp32")


def _num_bytes(tensor: Mapping[str, Any]) -> int:
    dims = tensor.get("Dimensions", ())
    return _SIZES.get(_type(tensor), 4) * math.prod(max(1, int(dim)) for dim in dims)
