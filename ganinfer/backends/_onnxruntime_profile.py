"""onnxruntime's profiler: a trace of every kernel, and the graph that it really runs."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ganinfer.backends._profile import Kernel, Profile, repeat
from ganinfer.bundle.onnx_nodes import Node, Nodes, nodes_of

TRACE, GRAPH = "trace", "optimized.onnx"  # in a folder: a file's first letters, and a file
_SUFFIX = "_kernel_time"
_TYPES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8"}
_MOVES = {
    *("Cast", "DequantizeLinear", "Expand", "Flatten", "Identity", "QuantizeLinear"),
    *("ReorderInput", "ReorderOutput", "Reshape", "Squeeze", "Transpose", "Unsqueeze"),
}


def settings(options: Any, folder: Path) -> None:
    """Let a session leave its trace and its graph in a folder; the weights beside the graph."""
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / TRACE)
    options.optimized_model_filepath = str(folder / GRAPH)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", "weights"
    )
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", "0"
    )


def profile(session: Any, run: Callable[[], object], seconds: float, folder: Path) -> Profile:
    """Run a session that was opened with these `settings`."""
    run_seconds = repeat(run, seconds)
    events = json.loads(Path(session.end_profiling()).read_bytes())
    graph = nodes_of((folder / GRAPH).read_bytes())
    takers = {name: node.name for node in reversed(graph.nodes) for name in node.inputs}
    by_name = {node.name: node for node in graph.nodes}
    runs = [event for event in events if event["name"] == "model_run"][-len(run_seconds) :]
    kernels: dict[str, Kernel] = {}
    found: list[dict[str, float]] = [{} for _ in runs]
    starts = np.array([event["ts"] for event in runs])
    for event in sorted(events, key=lambda event: event["ts"]):
        if event["cat"] != "Node" or not event["name"].endswith(_SUFFIX):
            continue
        name = event["name"].removesuffix(_SUFFIX)
        if name not in kernels:
            node = by_name.get(name)
            kernels[name] = _kernel(name, node, graph, takers, event["args"])
        number = int(np.searchsorted(starts, event["ts"], side="right")) - 1
        if number >= 0:
            found[number][name] = found[number].get(name, 0.0) + event["dur"] / 1e6
    seconds_of = np.array([[run.get(name, 0.0) for name in kernels] for run in found])
    return Profile(tuple(kernels.values()), seconds_of, run_seconds)


def _kernel(
    name: str, node: Node | None, graph: Nodes, takers: Mapping[str, str], told: Mapping[str, Any]
) -> Kernel:
    """Of a node as it runs: its name, its tensors, and what the profiler tells of it."""
    inputs = [kind for tensor in told["input_type_shape"] for kind in tensor]
    weights = (
        [graph.weights[n].num_bytes for n in node.inputs if n in graph.weights] if node else []
    )
    moved = int(told["activation_size"]) + int(told["output_size"])
    op, outputs = told["op_name"], node.outputs if node else ()
    return Kernel(
        name=name,
        nodes=() if op.startswith("Reorder") else (name,),
        feeds=tuple(takers[tensor] for tensor in outputs if tensor in takers),
        kind=f"{op} nchwc" if name.endswith("_nchwc") else op,
        type=_TYPES.get(inputs[0], inputs[0]) if inputs else "",
        moves=op in _MOVES,
        num_bytes=moved + sum(weights),
    )
