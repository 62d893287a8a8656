"""A transposed convolution as one convolution and a shuffle of pixels: the same sums elsewhere.

Shi et al., Is the deconvolution layer the same as a convolutional layer?, 1609.07009. Of stride s,
kernel w of size k and padding p, along one axis:

    y[o] = sum over i of x[i] w[o + p - s i].

With o + p = s q + r, zeros added to w up to m s, m = ceil(k / s),

    y[o] = sum over j < m of x[q - j] w[r + s j]:

for each of the s phases r a convolution of m taps, whose results at q are the pixels s q + r. All
phases are one convolution, of s times the channels along each axis; p that is no multiple of s
leaves pixels at the borders, which are cut off.

Runtimes have convolutions in types and on instructions where they have no transposed ones.
benchmarks/rewrites.py measures where that pays.
"""

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ganexport.graph.large import check, packed, weight_array
from ganexport.graph.macs import Shape, shapes_of
from ganinfer.bundle.manifest import Precision

SUBPIXEL = "subpixel"  # what it is called among the rewrites
# benchmarks/results/subpixel-cpu-1-core.md: in fp32 onnxruntime loses, of fp16 and fp8 nothing is
# known. bf16 where OpenVINO and TensorRT have no transposed ones.
PAYS: frozenset[Precision] = frozenset({"bf16", "int8"})
_LAST = np.iinfo(np.int64).max


def in_precision(model: bytes, precision: Precision, without: Collection[str] = ()) -> bytes:
    """The float32 graph that a variant is made of.

    Args:
        model: float32 ONNX file of a `SamplingGraph`.
        precision: of the variant.
        without: names of rewrites that are left out.
    """
    return to_subpixel(model) if precision in PAYS and SUBPIXEL not in without else model


def to_subpixel(model: bytes) -> bytes:
    """The same graph with a convolution in the place of each transposed one, as far as it has one.

    Of a map of one pixel, as z is, it is one product of matrices. Left as they are: transposed
    convolutions with dilation, with strides that differ, of one or three axes, of weights that the
    graph computes or uses twice, and those whose padding cuts off more than the kernel adds.

    Args:
        model: float32 ONNX file.

    Returns:
        ONNX file with the same inputs and outputs. What a layer gives is called as before, and so
        is its node.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    shapes = shapes_of(onnx.shape_inference.infer_shapes(proto, data_prop=True).graph)
    weights = {weight.name: weight for weight in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        layer = None
        constant = all(name in weights for name in node.input[1:])
        if node.op_type == "ConvTranspose" and constant and uses[node.input[1]] == 1:
            layer = _Layer.of(node, [weight_array(weights[name], model) for name in node.input[1:]])
        if layer is None:
            nodes.append(node)
            continue
        made = layer.product() if layer.is_product(shapes) else layer.convolution()
        nodes += made.nodes
        for name, array in made.weights.items():
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    if nodes == list(graph.node):
        return model
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    needed = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(needed)
    file = packed(proto, model)
    check(proto)
    return file


@dataclass(frozen=True)
class _Made:
    nodes: list[onnx.NodeProto]
    weights: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Axis:
    """One axis of the convolution that takes a transposed one's place.

    Attributes:
        before: zeros that are added before the kernel. taps: m, of each phase.
        pads: of the input, at both ends. cut: pixels of the result, at both ends.
    """

    before: int
    taps: int
    pads: tuple[int, int]
    cut: tuple[int, int]

    @classmethod
    def of(cls, kernel: int, stride: int, pads: tuple[int, int], added: int) -> "_Axis":
        """added: to the output, as output_padding says."""
        taps = math.ceil(kernel / stride)
        # Zeros before the kernel shift the result: where they can, to where nothing is cut off.
        shifts = range(taps * stride - kernel + 1)
        before = next((n for n in shifts if (pads[0] + n) % stride == 0), 0)
        first, cut = divmod(pads[0] + before, stride)
        last, kept = divmod(kernel + before - pads[1] + added - 1, stride)
        return cls(before, taps, (taps - 1 - first, last), (cut, stride - 1 - kept))


@dataclass(frozen=True)
class _Layer:
    """A transposed convolution over two axes of one stride; weight (C_in, C_out / groups, k, k)."""

    node: onnx.NodeProto
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    stride: int
    groups: int
    axes: tuple[_Axis, _Axis]

    @classmethod
    def of(cls, node: onnx.NodeProto, weights: list[NDArray[Any]]) -> "_Layer | None":
        """None if the node is left as it is."""
        said = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        kernel = weights[0].shape[2:]
        strides = set(said.get("strides", (1,)))
        if (
            len(kernel) != 2
            or len(strides) != 1
            or any(size != 1 for size in said.get("dilations", ()))
            or said.get("auto_pad", b"NOTSET") != b"NOTSET"
            or "output_shape" in said
        ):
            return None
        pads, added = said.get("pads", [0] * 4), said.get("output_padding", [0] * 2)
        (stride,) = strides
        vertical, horizontal = (
            _Axis.of(kernel[n], stride, (pads[n], pads[n + 2]), added[n]) for n in (0, 1)
        )
        if min(*vertical.pads, *horizontal.pads) < 0:
            return None
        bias = weights[1] if len(weights) > 1 else None
        groups = said.get("group", 1)
        return cls(node, weights[0], bias, stride, groups, (vertical, horizontal))

    def is_product(self, shapes: dict[str, Shape]) -> bool:
        """Is its input one pixel, which with the whole kernel gives all of the result?"""
        alone = shapes.get(self.node.input[0], ())[1:] == (1, 1)
        whole = all(axis.pads == (axis.taps - 1, axis.taps - 1) for axis in self.axes)
        return alone and whole and self.stride == self.groups == 1

    def product(self) -> _Made:
        """Of z (N, C_in, 1, 1) with the weight as a matrix (C_in, C_out k k)."""
        name, kernel = self.node.name, self.node.input[1]
        (source, *_), (result,) = self.node.input, self.node.output
        flat, product, shape = (f"{result}_{part}" for part in ("flat", "product", "shape"))
        channels, *size = self.weight.shape[1:]
        weights: dict[str, NDArray[Any]] = {
            f"{kernel}_matrix": self.weight.reshape(len(self.weight), -1)
        }
        if self.bias is not None:
            weights[f"{kernel}_matrix_bias"] = np.repeat(self.bias, math.prod(size))
        nodes = [
            helper.make_node("Flatten", [source], [flat], f"{name}.flat", axis=1),
            helper.make_node("Gemm", [flat, *weights], [product], name),
            helper.make_node("Reshape", [product, shape], [result], f"{name}.map"),
        ]
        return _Made(nodes, {**weights, shape: np.array([0, channels, *size])})

    def convolution(self) -> _Made:
        """Of all phases at once; then their pixels are put where they belong, and cut off."""
        name, kernel, s = self.node.name, self.node.input[1], self.stride
        (source, *_), (result,) = self.node.input, self.node.output
        weights: dict[str, NDArray[Any]] = {f"{kernel}_phases": self._phases()}
        if self.bias is not None:
            weights[f"{kernel}_phases_bias"] = np.repeat(self.bias, s * s)
        (top, bottom), (left, right) = (axis.cut for axis in self.axes)
        cut = any((top, bottom, left, right))
        wide = f"{result}_wide" if cut else result
        phases = f"{result}_phases" if s > 1 else wide
        nodes = [
            helper.make_node(
                "Conv", [source, *weights], [phases], name,
                kernel_shape=[axis.taps for axis in self.axes],
                pads=[axis.pads[end] for end in (0, 1) for axis in self.axes],
                group=self.groups,
            )
        ]  # fmt: skip
        if s > 1:
            shuffle = f"{name}.shuffle"
            nodes.append(
                helper.make_node("DepthToSpace", [phases], [wide], shuffle, blocksize=s, mode="CRD")
            )
        if cut:
            bounds = {
                f"{result}_starts": np.array([top, left]),
                f"{result}_ends": np.array([-bottom or _LAST, -right or _LAST]),
                f"{result}_axes": np.array([2, 3]),
            }
            nodes.append(helper.make_node("Slice", [wide, *bounds], [result], f"{name}.crop"))
            weights |= bounds
        return _Made(nodes, weights)

    def _phases(self) -> NDArray[np.float32]:
        """The weight (C_out s s, C_in / groups, m, m) of all phases."""
        s, (channels, of_group) = self.stride, self.weight.shape[:2]
        grouped = self.weight.reshape(self.groups, channels // self.groups, *self.weight.shape[1:])
        weight = grouped.swapaxes(1, 2).reshape(
            self.groups * of_group, channels // self.groups, *self.weight.shape[2:]
        )
        zeros = [
            (axis.before, axis.taps * s - size - axis.before)
            for axis, size in zip(self.axes, weight.shape[2:], strict=True)
        ]
        whole = np.pad(weight, [(0, 0), (0, 0), *zeros])
        rows, columns = (axis.taps for axis in self.axes)
        taps = whole.reshape(*weight.shape[:2], rows, s, columns, s)[:, :, ::-1, :, ::-1]
        return taps.transpose(0, 3, 5, 1, 2, 4).reshape(-1, weight.shape[1], rows, columns)
