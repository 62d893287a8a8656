"""What is rounded before a ReLU is rounded as after it.

onnxruntime computes in int8 only what is rounded at once, so a layer's result is, and once more
before the next layer. Of one scale the second rounding changes nothing; what the first one cuts off
is negative, and ends in the ReLU.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ganexport.graph.calibrating import Feed, mean_over_batches, tensors
from ganexport.graph.styles import rename

_MOVES = ("DepthToSpace", "Reshape", "Slice")


@dataclass(frozen=True)
class _Early:
    """A tensor that is rounded before a ReLU.

    Attributes:
        pair: QuantizeLinear and DequantizeLinear. cut: tensors from there to the ReLU.
        end: what comes of it. later: the next QuantizeLinear, if there is one.
    """

    pair: tuple[onnx.NodeProto, onnx.NodeProto]
    cut: list[str]
    end: str
    later: onnx.NodeProto | None


def share_scales(
    quantized: onnx.ModelProto, exact: onnx.ModelProto, calibration: Feed, largest: float
) -> None:
    """Give both roundings one scale, in place.

    Args:
        quantized: the variant, made of QuantizeLinear and DequantizeLinear.
        exact: the float32 model that it was made of; tensors have the same names.
        calibration: inputs by name, (N, ...) each.
        largest: number of the variant's type.
    """
    graph = quantized.graph
    found = _rounded_early(graph)
    open_ends = [one.end for one in found if one.later is None]
    ranges = mean_over_batches(tensors(exact, open_ends, calibration), np.max) if open_ends else {}
    for one in found:
        if one.later is not None:
            scale = one.later.input[1]
        elif ranges[one.end] > 0:
            scale = f"{one.end}_scale"
            number = (ranges[one.end] / largest).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(number, scale))
        else:
            continue
        for node in one.pair:
            node.input[1] = scale
        for name in one.cut:  # it is not the tensor any more that has this name elsewhere
            rename(graph, name, f"{name}_cut_off")


def _rounded_early(graph: onnx.GraphProto) -> list[_Early]:
    makers = {name: node for node in graph.node for name in node.output}
    takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            takers[name].append(node)
    found = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in makers:
            continue
        name, cut, relu = node.output[0], [node.output[0]], False
        while len(takers[name]) == 1 and takers[name][0].op_type in (*_MOVES, "Relu"):
            relu = relu or takers[name][0].op_type == "Relu"
            name = takers[name][0].output[0]
            if not relu:
                cut.append(name)
        if relu:
            later = (taker for taker in takers[name] if taker.op_type == "QuantizeLinear")
            found.append(_Early((makers[node.input[0]], node), cut, name, next(later, None)))
    return found
