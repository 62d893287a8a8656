"""Multiply-accumulates of a graph, as torch counts them: those of products of matrices."""

import math
from collections.abc import Mapping

import onnx

Shape = tuple[int, ...]


def macs_per_image(graph: bytes) -> int:
    """Of all nodes of a float32 ONNX file."""
    model = onnx.load_from_string(graph)
    return sum(node_macs(onnx.shape_inference.infer_shapes(model, data_prop=True).graph))


def node_macs(graph: onnx.GraphProto) -> list[int]:
    """Of each node, for one image.

    Args:
        graph: in float32, its shapes inferred.
    """
    shapes, weights = shapes_of(graph), {w.name: tuple(w.dims) for w in graph.initializer}
    return [_macs(node, shapes, weights) for node in graph.node]


def shapes_of(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Shape of every tensor without its batch; what is not fixed is 0."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: dims(value)[1:] for value in values}


def dims(value: onnx.ValueInfoProto) -> Shape:
    """Its shape; what is not fixed, as the batch, is 0."""
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape], weights: Mapping[str, Shape]) -> int:
    """0 for what is no product of matrices."""
    out = shapes.get(node.output[0], ())
    if node.op_type in ("Conv", "ConvTranspose"):
        # A kernel goes into every number of the output or, transposed, of the input.
        numbers = out if node.op_type == "Conv" else shapes.get(node.input[0], (0,))
        kernel = node.input[1]  # a weight, or a tensor that the graph computes
        size = weights[kernel][1:] if kernel in weights else shapes.get(kernel, (0,))
        return math.prod(numbers) * math.prod(size)
    if node.op_type in ("Gemm", "MatMul"):
        return math.prod(out) * shapes.get(node.input[0], (0,))[-1]
    return 0
