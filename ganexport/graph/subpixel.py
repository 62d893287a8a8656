"""Transposed convolutions as convolutions, in the form that pays: the same sums elsewhere.

Runtimes have convolutions in types and on instructions where they have no transposed ones, and
some of theirs are far from what the machine can do. benchmarks/rewrites.py measures where another
form pays.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection

import numpy as np
import onnx
from onnx import numpy_helper

from ganexport.graph.large import check, packed, weight_array
from ganexport.graph.macs import Shape, shapes_of
from ganexport.graph.phases import Made, Transposed
from ganinfer.bundle.manifest import Precision

SUBPIXEL = "subpixel"  # what it is called among the rewrites
# bf16 where OpenVINO and TensorRT have no transposed ones. Of fp16 and fp8 nothing is known.
_ALWAYS: frozenset[Precision] = frozenset({"bf16", "int8"})
# benchmarks/results/subpixel-layers-cpu-1-core.md has the figures of what follows, in fp32.
_VECTOR = 16  # channels; with fewer, as those of an image, OpenVINO computes zeros
_LEAST_MACS = 100_000  # an image; in smaller layers onnxruntime is the faster, and loses
_SMALL = 64  # pixels of a map; runtimes are slow at transposed convolutions of such
_MOST_NUMBERS = 1 << 22  # of a kernel that is read four times

Form = Callable[[Transposed, Shape, onnx.NodeProto | None], Made | None]


def in_precision(model: bytes, precision: Precision, without: Collection[str] = ()) -> bytes:
    """The float32 graph that a variant is made of.

    Args:
        model: float32 ONNX file of a `SamplingGraph`.
        precision: of the variant.
        without: names of rewrites that are left out.
    """
    return model if SUBPIXEL in without else to_subpixel(model, precision)


def to_subpixel(model: bytes, precision: Precision) -> bytes:
    """The same graph with convolutions in the place of transposed ones, where that pays.

    Of a map of one pixel, as z is, it is one product of matrices.

    Args:
        model: float32 ONNX file.
        precision: in which it will be computed.

    Returns:
        ONNX file, as of `replace`.
    """
    return replace(model, lambda layer, size, tanh: _form(layer, precision, size, tanh))


def replace(model: bytes, form: Form) -> bytes:
    """Put what `form` gives, if anything, in the place of transposed convolutions.

    Left as they are: those with dilation, with strides that differ, of one or three axes, of
    weights that the graph computes or uses twice, and those whose padding cuts off more than the
    kernel adds.

    Args:
        model: float32 ONNX file.
        form: is told the layer, height and width of its input (0 if not fixed), and the tanh that
            alone takes its result, if one does.

    Returns:
        ONNX file with the same inputs and outputs. What a layer gives is called as before, unless
        a tanh takes it, and so is its node.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    shapes = shapes_of(onnx.shape_inference.infer_shapes(proto, data_prop=True).graph)
    weights = {weight.name: weight for weight in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    tanhs = {n.input[0]: n for n in graph.node if n.op_type == "Tanh" and uses[n.input[0]] == 1}
    nodes: list[onnx.NodeProto] = []
    moved: set[str] = set()
    for node in graph.node:
        if node.output[0] in moved:
            continue
        found = layer = None
        constant = all(name in weights for name in node.input[1:])
        if node.op_type == "ConvTranspose" and constant and uses[node.input[1]] == 1:
            layer = Transposed.of(node, [weight_array(weights[n], model) for n in node.input[1:]])
        if layer is not None:
            size = shapes.get(node.input[0], (0, 0, 0))[1:]
            found = form(layer, size, tanhs.get(node.output[0]))
        if found is None:
            nodes.append(node)
            continue
        nodes += found.nodes
        moved.add(found.nodes[-1].output[0])
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


def _form(
    layer: Transposed, precision: Precision, size: Shape, tanh: onnx.NodeProto | None
) -> Made | None:
    """What pays in the place of a layer, if anything does."""
    if layer.is_product(size):
        return layer.product()
    if precision in _ALWAYS:
        return layer.convolution(tanh)
    if precision != "fp32" or layer.adds_zeros:
        return None
    if not layer.cuts:
        return layer.convolution(tanh)
    pixels = math.prod(size)
    if layer.num_channels < _VECTOR:
        return layer.convolution(tanh) if pixels * layer.weight.size >= _LEAST_MACS else None
    small = 0 < pixels <= _SMALL and layer.weight.size <= _MOST_NUMBERS
    return layer.convolutions() if small else None
