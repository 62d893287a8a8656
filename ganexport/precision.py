"""float32 ONNX -> a variant that computes in another precision.

Everything up to the image runs in the new type; tanh, the quantisation to uint8 and all outputs
stay float32: a half-precision tail alone costs a quarter of a uint8 step.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ganexport.graph import float_images
from ganinfer.bundle import Precision
from ganinfer.errors import ExportError

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")

_FLOAT16_MAX = float(np.finfo(np.float16).max)
# Inputs that ONNX defines as float32 whatever the data is.
_ALWAYS_FLOAT32 = {"Resize": (1, 2), "Upsample": (1,)}


def convert(model: bytes, precision: str) -> bytes:
    """The same graph in "fp32" (unchanged) or "fp16".

    Args:
        model: float32 ONNX file of a `SamplingGraph`.
        precision: one of PRECISIONS.

    Returns:
        ONNX file with the same inputs and outputs.

    Raises:
        ExportError: a weight does not fit the precision, or an operator cannot be converted.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    return model if precision == "fp32" else _to_float16(onnx.load_from_string(model))


def _to_float16(model: onnx.ModelProto) -> bytes:
    graph = model.graph
    tail = _tail(model)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    floats = {
        value.name
        for value in (*typed.value_info, *typed.input, *typed.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    weights = {w.name: w for w in graph.initializer if w.data_type == TensorProto.FLOAT}
    made_in_float16 = {
        name for n, node in enumerate(graph.node) if n not in tail for name in node.output
    } & floats
    casts: dict[tuple[str, int], str] = {}  # (value, wanted type) -> its cast
    nodes: list[onnx.NodeProto] = []

    def cast(name: str, to: int) -> str:
        key = (name, to)
        if key not in casts:
            casts[key] = f"{name}_as_{TensorProto.DataType.Name(to).lower()}"
            nodes.append(helper.make_node("Cast", [name], [casts[key]], casts[key], to=to))
        return casts[key]

    for index, node in enumerate(graph.node):
        if any(
            a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
            for a in node.attribute
        ):
            raise ExportError(
                f"{node.name}: {node.op_type} holds a subgraph; fp16 does not support it"
            )
        for slot, name in enumerate(node.input):
            wants_float32 = index in tail or slot in _ALWAYS_FLOAT32.get(node.op_type, ())
            if wants_float32 and name in made_in_float16:
                node.input[slot] = cast(name, TensorProto.FLOAT)
            elif not wants_float32 and name in weights:
                node.input[slot] = _half_weight(graph, weights[name])
            elif not wants_float32 and name in floats and name not in made_in_float16:
                node.input[slot] = cast(name, TensorProto.FLOAT16)
        if index not in tail:
            _retype_attributes(node)
        nodes.append(node)

    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [w for w in graph.initializer if w.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _tail(model: onnx.ModelProto) -> set[int]:
    """Indices of the nodes that stay float32: the tail, and the tanh before it."""
    producers = {name: n for n, node in enumerate(model.graph.node) for name in node.output}
    image = float_images(model)
    tail: set[int] = set()
    name = model.graph.output[0].name
    while name != image:
        tail.add(producers[name])
        name = model.graph.node[producers[name]].input[0]
    last = producers.get(image)
    if last is not None and model.graph.node[last].op_type == "Tanh":
        tail.add(last)
    return tail


def _half_weight(graph: onnx.GraphProto, weight: onnx.TensorProto) -> str:
    name = f"{weight.name}_fp16"
    if all(w.name != name for w in graph.initializer):
        array = numpy_helper.to_array(weight)
        largest = float(np.abs(array).max(initial=0.0))
        if not largest <= _FLOAT16_MAX:
            raise ExportError(
                f"{weight.name}: largest value {largest:g} does not fit fp16 ({_FLOAT16_MAX:g});"
                " leave fp16 out"
            )
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), name))
    return name


def _retype_attributes(node: onnx.NodeProto) -> None:
    """Types and constants that a node carries in its attributes."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        elif (
            attribute.type == onnx.AttributeProto.TENSOR
            and attribute.t.data_type == TensorProto.FLOAT
        ):
            array = numpy_helper.to_array(attribute.t).astype(np.float16)
            attribute.t.CopyFrom(numpy_helper.from_array(array))
