"""onnxruntime's profiler: a trace of every kernel, and the graph that it really runs."""

import bisect
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
    events.sort(key=lambda event: event["ts"])
    starts = [event["ts"] for event in events if event["name"] == "model_run"][-len(run_seconds) :]
    told: dict[str, Mapping[str, Any]] = {}
    found: list[dict[str, float]] = [{} for _ in starts]
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_SUFFIX):
            name = event["name"].removesuffix(_SUFFIX)
            told.setdefault(name, event["args"])
            number = bisect.bisect(starts, event["ts"]) - 1
            if number >= 0:  # else it is of a run that does not count
                found[number][name] = found[number].get(name, 0.0) + event["dur"] / 1e6
    kernels = _kernels(told, nodes_of((folder / GRAPH).read_bytes()))
    rows = [[run.get(kernel.name, 0.0) for kernel in kernels] for run in found]
    return Profile(kernels, np.array(rows), run_seconds)


def _kernels(told: Mapping[str, Mapping[str, Any]], graph: Nodes) -> tuple[Kernel, ...]:
    """What the profiler tells by name, in the order of the run, and the graph that ran."""
    by_name = {node.name: node for node in graph.nodes if node.name}
    # A node without a name is told by its operator and a number: the next one of that operator is.
    nameless = [node for node in graph.nodes if not node.name]
    nodes: dict[str, Node | None] = {}
    for name, arguments in told.items():
        node = by_name.get(name)
        if node is None:
            node = next((other for other in nameless if other.op == arguments["op_name"]), None)
            if node is not None:
                nameless.remove(node)
        nodes[name] = node
    takers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for tensor in node.inputs if node else ():
            takers.setdefault(tensor, []).append(name)
    return tuple(_kernel(name, node, graph, takers, told[name]) for name, node in nodes.items())


def _kernel(
    name: str,
    node: Node | None,
    graph: Nodes,
    takers: Mapping[str, list[str]],
    told: Mapping[str, Any],
) -> Kernel:
    op, inputs = told["op_name"], [kind for tensor in told["input_type_shape"] for kind in tensor]
    takes, gives = (node.inputs, node.outputs) if node else ((), ())
    weights = sum(graph.weights[tensor].num_bytes for tensor in takes if tensor in graph.weights)
    names = (name,) if node is None or node.name else gives
    return Kernel(
        name=name,
        nodes=() if op.startswith("Reorder") else names,
        feeds=tuple(taker for tensor in gives for taker in takers.get(tensor, ())),
        kind=f"{op} nchwc" if name.endswith("_nchwc") else op,
        type=_TYPES.get(inputs[0], inputs[0]) if inputs else "",
        moves=op in _MOVES,
        num_bytes=int(told["activation_size"]) + int(told["output_size"]) + weights,
    )
