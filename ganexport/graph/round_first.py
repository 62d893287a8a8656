"""What is moved is rounded on both sides of it: runtimes then move one byte a number, not four.

Rounding and moving may change places, and to round again by the same scale changes nothing.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

_MOVES = ("DepthToSpace", "Slice")

Takers = Mapping[str, Sequence[onnx.NodeProto]]


def round_first(graph: onnx.GraphProto) -> None:
    """Round what goes into a movement and what comes of it alike, in place, if either is rounded.

    Args:
        graph: of QuantizeLinear and DequantizeLinear. Not one number of its images changes.
    """
    takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            takers[name].append(node)
    by: dict[str, list[str]] = {}  # tensors that were rounded, and by which scale and zero point
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        (result,) = node.output[:1]
        if node.op_type == "DequantizeLinear":
            by[result] = list(node.input[1:])
        if node.op_type not in _MOVES:
            nodes.append(node)
            continue
        source = node.input[0]
        scale = by.get(source) or _rounded_later(result, takers)
        if not scale:
            nodes.append(node)
            continue
        if source not in by:
            node.input[0] = f"{source}_rounded"
            nodes += _pair(source, node.input[0], scale)
        nodes.append(node)
        if [list(taker.input[1:]) for taker in takers[result] if _rounds(taker)] != [scale]:
            node.output[0] = f"{result}_moved"
            nodes += _pair(node.output[0], result, scale)
            by[result] = scale
    del graph.node[:]
    graph.node.extend(nodes)


def _rounded_later(name: str, takers: Takers) -> list[str] | None:
    """By which scale and zero point a tensor is rounded that is only moved before."""
    while len(takers[name]) == 1:
        (node,) = takers[name]
        if _rounds(node):
            return list(node.input[1:])
        if node.op_type not in _MOVES:
            return None
        name = node.output[0]
    return None


def _rounds(node: onnx.NodeProto) -> bool:
    return node.op_type == "QuantizeLinear"


def _pair(source: str, result: str, scale: list[str]) -> list[onnx.NodeProto]:
    """QuantizeLinear and DequantizeLinear."""
    integers = f"{result}_integers"
    return [
        helper.make_node("QuantizeLinear", [source, *scale], [integers], integers),
        helper.make_node("DequantizeLinear", [integers, *scale], [result], result),
    ]
