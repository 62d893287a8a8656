"""Convolutions in the form that pays, behind which pixels are shuffled: the same sums elsewhere.

Runtimes have convolutions in types and on instructions where they have no transposed ones, and
some of theirs are far from what the machine can do; so are convolutions of few channels, as those
of an image. benchmarks/rewrites.py measures where another form pays.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ganexport.graph.large import check, packed, weight_array
from ganexport.graph.macs import Shape, shapes_of
from ganexport.graph.narrow import VECTOR, Narrow
from ganexport.graph.phases import Made, Transposed
from ganinfer.bundle.manifest import Precision

SUBPIXEL = "subpixel"  # what it is called among the rewrites
# bf16 where OpenVINO and TensorRT have no transposed ones. Of fp16 and fp8 nothing is known.
_ALWAYS: frozenset[Precision] = frozenset({"bf16", "int8"})
# benchmarks/results/subpixel-layers-cpu-1-core.md has the figures of what follows, in fp32.
_LEAST_MACS = 100_000  # an image; in smaller layers onnxruntime is the faster, and loses
_SMALL = 64  # pixels of a map; runtimes are slow at transposed convolutions of such
_MOST_NUMBERS = 1 << 22  # of a kernel that is read four times

# What gives of each number another, if all else that it takes is one number.
_POINTWISE = ("Add", "Clip", "Elu", "LeakyRelu", "Mul", "Relu", "Round", "Sigmoid", "Tanh")

Layer = Transposed | Narrow
Form = Callable[[Layer, Shape, Sequence[onnx.NodeProto]], Made | None]

_LAYERS: dict[str, Callable[[onnx.NodeProto, list[NDArray[Any]]], Layer | None]] = {
    "ConvTranspose": Transposed.of,
    "Conv": Narrow.of,
}


def in_precision(model: bytes, precision: Precision, without: Collection[str] = ()) -> bytes:
    """The float32 graph that a variant is made of.

    Args:
        model: float32 ONNX file of a `SamplingGraph`.
        precision: of the variant.
        without: names of rewrites that are left out.
    """
    return model if SUBPIXEL in without else to_subpixel(model, precision)


def to_subpixel(model: bytes, precision: Precision) -> bytes:
    """The same graph with other convolutions in the place of transposed and narrow ones.

    Of a map of one pixel, as z is, it is one product of matrices.

    Args:
        model: float32 ONNX file.
        precision: in which it will be computed.

    Returns:
        ONNX file, as of `replace`.
    """
    return replace(model, lambda layer, size, after: _form(layer, precision, size, after))


def replace(model: bytes, form: Form) -> bytes:
    """Put what `form` gives, if anything, in the place of transposed and narrow convolutions.

    Left as they are: those with dilation, with strides that differ, of one or three axes, of
    weights that the graph computes or uses twice, and transposed ones whose padding cuts off more
    than the kernel adds.

    Args:
        model: float32 ONNX file.
        form: is told the layer, height and width of its input (0 if not fixed), and what of all
            pixels alike is computed next, as an activation, which may come before a shuffle.

    Returns:
        ONNX file with the same inputs and outputs. What comes of a layer and of what is computed
        next is called as before, and so is its node.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    shapes = shapes_of(onnx.shape_inference.infer_shapes(proto, data_prop=True).graph)
    weights = {weight.name: weight for weight in graph.initializer}
    takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            takers[name].append(node)
    nodes: list[onnx.NodeProto] = []
    moved: set[str] = set()
    for node in graph.node:
        if node.output[0] in moved:
            continue
        found = layer = None
        after: list[onnx.NodeProto] = []
        constant = all(name in weights for name in node.input[1:])
        if node.op_type in _LAYERS and constant and len(takers[node.input[1]]) == 1:
            own = [weight_array(weights[name], model) for name in node.input[1:]]
            layer = _LAYERS[node.op_type](node, own)
        if layer is not None:
            size = shapes.get(node.input[0], (0, 0, 0))[1:]
            if layer.stride > 1:
                after = _pointwise_after(node.output[0], takers, weights)
            found = form(layer, size, after)
        if found is None:
            nodes.append(node)
            continue
        nodes += found.nodes
        if found.nodes[-1].output[0] != node.output[0]:
            moved.update(name for one in after for name in one.output)
        for name, array in found.weights.items():
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    if nodes == list(graph.node):
        return model
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    needed = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(needed)
    typed = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.value_info
    made = {name for node in nodes for name in node.output}
    shown = [value for value in typed if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(shown)  # `gan bench --layers` reads shapes there
    file = packed(proto, model)
    check(proto)
    return file


def _pointwise_after(
    name: str,
    takers: Mapping[str, Sequence[onnx.NodeProto]],
    constants: Mapping[str, onnx.TensorProto],
) -> list[onnx.NodeProto]:
    """What alone takes a tensor, and then what alone takes that, as far as each is pointwise."""
    found: list[onnx.NodeProto] = []
    while len(takers[name]) == 1:
        (node,) = takers[name]
        others = [other for other in node.input if other not in ("", name)]
        one_number = all(o in constants and math.prod(constants[o].dims) == 1 for o in others)
        if node.op_type not in _POINTWISE or not one_number:
            break
        found.append(node)
        name = node.output[0]
    return found


def _form(
    layer: Layer, precision: Precision, size: Shape, after: Sequence[onnx.NodeProto]
) -> Made | None:
    """What pays in the place of a layer, if anything does."""
    if isinstance(layer, Narrow):
        return layer.convolution(size, after) if precision in (*_ALWAYS, "fp32") else None
    if layer.is_product(size):
        return layer.product()
    if precision in _ALWAYS:
        return layer.convolution(after)
    if precision != "fp32" or layer.adds_zeros:
        return None
    if not layer.cuts:
        return layer.convolution(after)
    pixels = math.prod(size)
    if layer.num_channels < VECTOR:  # OpenVINO computes zeros besides
        return layer.convolution(after) if pixels * layer.weight.size >= _LEAST_MACS else None
    small = 0 < pixels <= _SMALL and layer.weight.size <= _MOST_NUMBERS
    return layer.convolutions(after) if small else None
