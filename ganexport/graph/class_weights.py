"""Graphs that take a weight for each class: every table that y looks up is multiplied by y.

A row of a table (K, ...) is the product of a one-hot vector and the table, exactly; the product of
other weights is a mixture of its rows. N images, K classes.
"""

import math
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ganexport.graph.large import check, packed, weight_array
from ganinfer.errors import ExportError

# What torch puts between y and a table, according to how the table is indexed.
_RESHAPES = ("Identity", "Reshape", "Squeeze", "Unsqueeze")


def take_weights(model: bytes, num_classes: int) -> bytes:
    """The same graph with y float32 (N, K) instead of int64 (N,).

    Raises:
        ExportError: y is used for something else than to look up rows of a table of weights.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    tables = {weight.name: weight for weight in graph.initializer}
    typed = onnx.shape_inference.infer_shapes(proto).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in typed.value_info
    }
    classes, nodes = {"y"}, []
    for node in graph.node:
        if classes.isdisjoint(node.input):
            nodes.append(node)
        elif node.op_type in _RESHAPES:
            classes.update(node.output)
        else:
            table = tables.get(node.input[0])
            if not _looks_up(node, table, num_classes):
                raise ExportError(
                    f"{node.name}: {node.op_type} uses y otherwise than to look up rows of a"
                    f" float32 table of the {num_classes} classes; leave --class-weights out"
                )
            assert table is not None
            array = weight_array(table, model)
            nodes += _product(graph, node, table.name, array, shapes[node.output[0]][1:])
    del graph.node[:]
    graph.node.extend(nodes)
    y = next(value for value in graph.input if value.name == "y")
    y.type.tensor_type.elem_type = TensorProto.FLOAT
    y.type.tensor_type.shape.dim.add().dim_value = num_classes
    file = packed(proto, model)
    check(proto)
    return file


def class_products(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that multiply weights of classes by a table.

    They stay float32 in every precision: a one-hot row then gives what looking it up gives.
    """
    return {node.name for node in graph.node if node.op_type == "MatMul" and node.input[0] == "y"}


def _looks_up(node: onnx.NodeProto, table: onnx.TensorProto | None, num_classes: int) -> bool:
    by_row = node.op_type in ("Gather", "GatherND") and not any(a.i for a in node.attribute)
    if not by_row or table is None or table.data_type != TensorProto.FLOAT:
        return False
    return bool(table.dims[0] == num_classes)


def _product(
    graph: onnx.GraphProto, node: onnx.NodeProto, table: str, values: NDArray[Any], row: list[int]
) -> list[onnx.NodeProto]:
    """What gives for weights y the rows (N, *row) of a table that a node gives for classes."""
    if values.ndim == 2 and len(row) == 1:
        return [helper.make_node("MatMul", ["y", table], node.output, node.name)]
    flat, shape, product = (f"{node.name}_{part}" for part in ("table", "shape", "product"))
    array = values.reshape(len(values), math.prod(row))
    graph.initializer.append(numpy_helper.from_array(array, flat))
    graph.initializer.append(
        helper.make_tensor(shape, TensorProto.INT64, [1 + len(row)], [-1, *row])
    )
    return [
        helper.make_node("MatMul", ["y", flat], [product], node.name),
        helper.make_node("Reshape", [product, shape], node.output, f"{node.name}_rows"),
    ]
