"""float32 ONNX -> a variant that computes in another precision.

Everything up to the image runs in the new type; what depends on the truncation alone, mixtures of
classes, what makes a StyleGAN's styles, tanh, the quantisation to uint8 and all outputs stay
float32: a half-precision tail alone costs a quarter of a uint8 step. Layers that are named to be
kept stay float32, too.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from ganexport.graph.class_weights import class_products
from ganexport.graph.large import check, packed, weight_array
from ganexport.graph.styles import style_nodes
from ganexport.graph.tracing import tail_of
from ganinfer.bundle.manifest import Precision
from ganinfer.errors import ExportError

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")

Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Half:
    """A type of sixteen bits. refused: operators that runtimes do not have in it."""

    name: str
    onnx_type: int
    numpy_type: Any
    largest: float
    refused: frozenset[str] = frozenset()


_HALVES = {
    "fp16": _Half("fp16", TensorProto.FLOAT16, np.float16, float(np.finfo(np.float16).max)),
    # TensorRT refuses transposed convolutions in bfloat16.
    "bf16": _Half(
        "bf16",
        TensorProto.BFLOAT16,
        ml_dtypes.bfloat16,
        3.3895e38,
        frozenset({"ConvTranspose"}),
    ),
}
# From this one on convolutions are defined for bfloat16.
_OPSET_OF_BFLOAT16 = 22
# What is computed with many multiplications, and may be kept in float32 or quantised.
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What gives numbers that it was given, or their absolute values or opposites: nothing to round.
_EXACT = (
    *("Abs", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherND", "Identity"),
    *("Max", "MaxPool", "Min", "Neg", "Pad", "ReduceMax", "ReduceMin", "Relu", "Reshape", "Slice"),
    *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
)
# Inputs that ONNX defines as float32 whatever the data is.
_ALWAYS_FLOAT32 = {"Resize": (1, 2), "Upsample": (1,)}


def convert(
    model: bytes,
    precision: str,
    *,
    keep: Collection[str] = (),
    calibration: Feed | None = None,
) -> bytes:
    """The same graph in "fp32" (unchanged), "fp16", "bf16", "int8" or "fp8".

    Args:
        model: float32 ONNX file of a `SamplingGraph`.
        precision: one of PRECISIONS.
        keep: names of nodes that stay float32, of any kind; see `layers` and
            `ganexport.proof.overflow`.
        calibration: for int8 and fp8, inputs by name, from which activations' ranges are taken.

    Returns:
        ONNX file with the same inputs and outputs.

    Raises:
        ExportError: a weight does not fit the precision, or an operator cannot be converted.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if precision == "fp32":
        return model
    proto = onnx.load_from_string(model)
    keep = style_nodes(proto.graph) | set(keep)
    if precision in ("int8", "fp8"):
        from ganexport.graph.quantize import quantize

        assert calibration is not None
        return quantize(model, precision, calibration=calibration, keep=keep)
    try:
        if precision == "bf16":
            proto = version_converter.convert_version(proto, _OPSET_OF_BFLOAT16)
        return _to_half(proto, model, _HALVES[precision], frozenset(keep))
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        said = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"{precision}: ONNX does not take the graph: {said[:200]}; leave {precision} out"
        ) from error


def layers(model: bytes) -> list[str]:
    """Names of the nodes that a search may keep in float32, first to last."""
    graph = onnx.load_from_string(model).graph
    fixed = class_products(graph) | style_nodes(graph)
    return [n.name for n in graph.node if n.op_type in _LAYERS and n.name not in fixed]


def emulate(model: bytes, precision: Precision) -> bytes:
    """A graph in fp16 or bf16 as float32 whose every result is rounded, overflow to infinity.

    Runtimes without kernels of a half precision compute it in float32, and drop casts in between.
    Here a node gives what hardware gives, as far as that is settled:

    - What a node sums (a convolution, a matrix product, a reduction, a softmax, a norm that is one
      node) is summed in float32, as tensor cores do, and rounded once, at the end. A kernel that
      sums in half precision is not covered: golden images judge it where it first opens.
    - What the graph has as a tensor is rounded: in a norm that is written out (Pow, ReduceMean,
      Sqrt, Div) the squares, their mean and the root. ReduceL2 is three such nodes, because
      TensorRT's parser makes them of it.
    - Subnormal numbers are kept. What only moves or picks numbers rounds nothing.

    Args:
        model: ONNX file, as `convert` makes it.
        precision: "fp16" or "bf16".

    Returns:
        ONNX file of the same inputs, outputs and names of tensors; what a tensor was before it was
        rounded is called as `before_rounding` says.
    """
    half = _HALVES[precision]
    proto = onnx.load_from_string(model)
    spell_out(proto.graph)
    graph = proto.graph
    rounded = tensors_of_type(proto, half.onnx_type)
    nodes: list[onnx.NodeProto] = []
    for weight in graph.initializer:
        if weight.data_type == half.onnx_type:
            array = weight_array(weight, model).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    for node in graph.node:
        _retype_attributes(node, half.onnx_type, TensorProto.FLOAT, np.float32)
        nodes.append(node)
        if node.op_type in _EXACT:
            continue
        for slot, name in enumerate(node.output):
            if name in rounded:
                node.output[slot] = before_rounding(name)
                short = f"{name}_{half.name}"
                nodes += [
                    helper.make_node("Cast", [node.output[slot]], [short], to=half.onnx_type),
                    helper.make_node("Cast", [short], [name], to=TensorProto.FLOAT),
                ]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return packed(proto, model)


def before_rounding(name: str) -> str:
    """What `emulate` calls a tensor that it has not rounded yet."""
    return f"{name}_exact"


def spell_out(graph: onnx.GraphProto) -> dict[str, str]:
    """Write, in place, norms that are one node as the squares, sum and root that runtimes make.

    Returns:
        By the name of each such new node that of the node that it was.
    """
    nodes: list[onnx.NodeProto] = []
    origins: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "ReduceL2":
            nodes.append(node)
            continue
        (x, *axes), (norm,), name = node.input, node.output, node.name
        squares, total = f"{norm}_squares", f"{norm}_sum"
        reduced = helper.make_node("ReduceSum", [squares, *axes], [total], f"{name}_sum")
        reduced.attribute.extend(node.attribute)
        nodes += [
            helper.make_node("Mul", [x, x], [squares], f"{name}_squares"),
            reduced,
            helper.make_node("Sqrt", [total], [norm], name),
        ]
        origins |= {f"{name}_sum": name, f"{name}_squares": name}
    del graph.node[:]
    graph.node.extend(nodes)
    return origins


def tensors_of_type(model: onnx.ModelProto, onnx_type: int) -> set[str]:
    """Names of the tensors that a graph computes in a type."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    return {
        value.name
        for value in (*typed.value_info, *typed.output)
        if value.type.tensor_type.elem_type == onnx_type
    }


def _to_half(model: onnx.ModelProto, file: bytes, half: _Half, keep: frozenset[str]) -> bytes:
    """The model of a file in half precision."""
    graph = model.graph
    opset = next(o.version for o in model.opset_import if not o.domain)
    kept = (
        _tail(graph)
        | _of_truncation(graph)
        | {
            n
            for n, node in enumerate(graph.node)
            if node.name in keep | class_products(graph)
            or node.op_type in half.refused
            or not _is_defined(node, opset, half)
        }
    )
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    floats = {
        value.name
        for value in (*typed.value_info, *typed.input, *typed.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    weights = {w.name: w for w in graph.initializer if w.data_type == TensorProto.FLOAT}
    made_in_half = {
        name for n, node in enumerate(graph.node) if n not in kept for name in node.output
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
                f"{node.name}: {node.op_type} holds a subgraph; {half.name} does not support it"
            )
        for slot, name in enumerate(node.input):
            wants_float32 = index in kept or slot in _ALWAYS_FLOAT32.get(node.op_type, ())
            if wants_float32 and name in made_in_half:
                node.input[slot] = cast(name, TensorProto.FLOAT)
            elif not wants_float32 and name in weights:
                node.input[slot] = _half_weight(graph, weights[name], file, half)
            elif not wants_float32 and name in floats and name not in made_in_half:
                node.input[slot] = cast(name, half.onnx_type)
        if index not in kept:
            _retype_attributes(node, TensorProto.FLOAT, half.onnx_type, half.numpy_type)
        nodes.append(node)

    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    needed = [w for w in graph.initializer if w.name in used]
    del graph.initializer[:]
    graph.initializer.extend(needed)
    del graph.value_info[:]
    converted = packed(model, file)
    check(model)
    return converted


def _is_defined(node: onnx.NodeProto, opset: int, half: _Half) -> bool:
    """Does ONNX have the operator in this type wherever it has it in float32?"""
    wanted = f"tensor({TensorProto.DataType.Name(half.onnx_type).lower()})"
    constraints = onnx.defs.get_schema(node.op_type, opset, node.domain).type_constraints
    allowed = [constraint.allowed_type_strs for constraint in constraints]
    return all(wanted in types for types in allowed if "tensor(float)" in types)


def _tail(graph: onnx.GraphProto) -> set[int]:
    """Indices of the nodes that stay float32: the tail, and the tanh before it."""
    producers = {name: n for n, node in enumerate(graph.node) for name in node.output}
    nodes = tail_of(graph)
    tail = {producers[node.output[0]] for node in nodes}
    last = producers.get(nodes[-1].input[0])
    return tail | {last} if last is not None and graph.node[last].op_type == "Tanh" else tail


def _of_truncation(graph: onnx.GraphProto) -> set[int]:
    """Indices of the nodes that see the truncation and constants alone.

    They are a few numbers an image, among them places in tables, which half precision would miss.
    """
    constants = {weight.name for weight in graph.initializer}
    seen, found = {"truncation"}, set()
    for n, node in enumerate(graph.node):
        inputs = {name for name in node.input if name}
        if inputs <= constants:
            constants.update(node.output)
        elif inputs <= constants | seen:
            found.add(n)
            seen.update(node.output)
    return found


def _half_weight(graph: onnx.GraphProto, weight: onnx.TensorProto, file: bytes, half: _Half) -> str:
    name = f"{weight.name}_{half.name}"
    if all(w.name != name for w in graph.initializer):
        array = weight_array(weight, file)
        largest = float(np.abs(array).max(initial=0.0))
        if not largest <= half.largest:
            raise ExportError(
                f"{weight.name}: largest value {largest:g} does not fit {half.name}"
                f" ({half.largest:g}); leave {half.name} out"
            )
        graph.initializer.append(numpy_helper.from_array(array.astype(half.numpy_type), name))
    return name


def _retype_attributes(node: onnx.NodeProto, old: int, new: int, numpy_type: Any) -> None:
    """Types and constants that a node carries in its attributes."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == old:
            attribute.i = new
        elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == old:
            array = numpy_helper.to_array(attribute.t).astype(numpy_type)
            attribute.t.CopyFrom(numpy_helper.from_array(array))
