"""What an ONNX file computes, read from its wire format: nodes, weights, shapes of tensors.

Field numbers are those of onnx.proto3.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ganinfer.bundle.onnx_wire import fields_of, integers_of

# TensorProto.DataType -> bytes of a number; what is not here has one.
_SIZES = {1: 4, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """One node: its name, operator, and the names of the tensors it takes and gives."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def output(self) -> str:
        """The first."""
        return self.outputs[0]


@dataclass(frozen=True)
class Weight:
    """A constant's shape, and what it takes of memory."""

    shape: Shape
    num_bytes: int


@dataclass(frozen=True)
class Nodes:
    """A graph: its nodes in order, weights and shapes by name; 0 is a size that is not fixed."""

    nodes: tuple[Node, ...]
    weights: dict[str, Weight]
    shapes: dict[str, Shape]


def nodes_of(model: bytes) -> Nodes:
    """The graph of an ONNX file; its weights' values, wherever they are, are not looked at."""
    nodes: list[Node] = []
    weights: dict[str, Weight] = {}
    shapes: dict[str, Shape] = {}
    for graph in _submessages(memoryview(model), 7):
        for field, value in fields_of(graph):
            if isinstance(value, int):
                continue
            if field == 1:
                nodes.append(_node(value))
            elif field == 5:
                weights |= _weight(value)
            elif field in (11, 12, 13):  # inputs, outputs, what is in between
                shapes[_text(value, 1)] = _shape(value)
    return Nodes(tuple(nodes), weights, shapes)


def _node(data: memoryview) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    for field, value in fields_of(data):
        if field in texts and not isinstance(value, int):
            texts[field].append(str(value, "utf-8", "replace"))
    name, op = ("".join(texts[field]) for field in (3, 4))
    return Node(name, op, tuple(texts[1]), tuple(texts[2]))


def _weight(data: memoryview) -> dict[str, Weight]:
    shape, kind = integers_of(data, 1), integers_of(data, 2)
    size = _SIZES.get(kind[0], 1) if kind else 1
    return {_text(data, 8): Weight(shape, size * math.prod(shape))}


def _shape(value_info: memoryview) -> Shape:
    """The dimensions in type.tensor_type.shape of a ValueInfoProto."""
    dims = [
        integers_of(dim, 1)
        for kind in _submessages(value_info, 2)
        for tensor in _submessages(kind, 1)
        for shape in _submessages(tensor, 2)
        for dim in _submessages(shape, 1)
    ]
    return tuple(dim[0] if dim else 0 for dim in dims)


def _text(data: memoryview, number: int) -> str:
    return "".join(str(part, "utf-8", "replace") for part in _submessages(data, number))


def _submessages(data: memoryview, number: int) -> Iterator[memoryview]:
    for field, value in fields_of(data):
        if field == number and not isinstance(value, int):
            yield value
