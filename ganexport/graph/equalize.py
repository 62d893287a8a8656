"""Channels of like range: one scale for all of a tensor then holds more of each.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 1906.04721;
how much of a range is left to the weights, Xiao et al., SmoothQuant, 2211.10438. Where a layer goes
into another through ReLU and movements alone, channel c of the first may be divided by s_c and the
weights that take it be multiplied by it:

    s_c = (largest activation of c)^a / (largest weight that takes c)^(1 - a).

s_c is rounded to a power of two, so not one bit of an image changes.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ganexport.graph.calibrating import Feed, mean_over_batches, tensors

Exponents = dict[str, list[int]]

# Of PSNR a share between 0.5 and 1 makes the most, of the worst image this one.
_SHARE = 0.7
_LEAST = 1e-3  # of the largest channel; what is smaller counts as that
# What gives numbers that it was given, or times as much for times as much, of the same channels.
THROUGH = ("DepthToSpace", "LeakyRelu", "Relu", "Reshape", "Slice")
_MAPS = ("Conv", "ConvTranspose")
_METADATA = "ganpipe.equalized"


@dataclass(frozen=True)
class _Pair:
    """A layer, the nodes that its result goes through, and the layer that takes what they give."""

    layer: onnx.NodeProto
    through: list[onnx.NodeProto]
    taker: onnx.NodeProto

    def exponents(self, last: NDArray[np.int64]) -> Exponents:
        """Of every tensor from the layer's result on, by those of what the other layer takes."""
        found, own = {self.taker.input[0]: last}, last
        for node in reversed(self.through):
            if node.op_type == "DepthToSpace":
                own = _before_shuffle(node, own)
            found[node.input[0]] = own
        return {name: each.tolist() for name, each in found.items()}


def equalize(model: onnx.ModelProto, calibration: Feed) -> Exponents:
    """Give channels like ranges, in place.

    Args:
        model: in float32.
        calibration: inputs by name, (N, ...) each.

    Returns:
        By the names of tensors what power of two each channel was divided by, (C,); what is to be
        reshaped has a multiple of C channels, in their order.
    """
    pairs = _pairs(model.graph)
    if not pairs:
        return {}
    ends = [pair.taker.input[0] for pair in pairs]
    largest = mean_over_batches(
        tensors(model, ends, calibration), lambda x: np.abs(x).max(axis=(0, *range(2, x.ndim)))
    )
    weights = {weight.name: weight for weight in model.graph.initializer}
    divided: Exponents = {}
    for pair in pairs:
        kernel = weights[pair.taker.input[1]]
        axis = 1 if pair.taker.op_type == "Conv" else 0
        taking = np.moveaxis(numpy_helper.to_array(kernel), axis, 0)
        channels = largest[pair.taker.input[0]]
        if len(taking) != len(channels):
            continue
        exponents = _exponents(channels, np.abs(taking).reshape(len(taking), -1))
        each = pair.exponents(exponents)
        given = np.array(each[pair.layer.output[0]])
        first, *bias = (weights[name] for name in pair.layer.input[1:])
        giving = [(first, _axis_given(pair.layer)), *((weight, 0) for weight in bias)]
        if any(weight.dims[along] % len(given) for weight, along in giving):
            continue  # of groups
        _scale(kernel, axis, exponents)
        for weight, along in giving:
            _scale(weight, along, -given)
        divided |= each
    return divided


def _axis_given(layer: onnx.NodeProto) -> int:
    """Of a layer's weight, the axis of its results."""
    transposed = any(a.name == "transB" and a.i for a in layer.attribute)
    return int(layer.op_type != "Conv" and not transposed)


def record(model: onnx.ModelProto, divided: Exponents) -> None:
    """Write into a model what its channels were divided by."""
    if divided:
        model.metadata_props.add(key=_METADATA, value=json.dumps(divided))


def divided_by(model: onnx.ModelProto) -> Exponents:
    """What `record` wrote into it; empty if nothing was divided."""
    said = (prop.value for prop in model.metadata_props if prop.key == _METADATA)
    found: Exponents = json.loads(next(said, "{}"))
    return found


def multiplied(x: NDArray[Any], exponents: list[int] | None) -> NDArray[Any]:
    """A tensor (N, C, ...) as it was before its channels were divided, if they were."""
    if exponents is None:
        return x
    each = np.repeat(exponents, x.shape[1] // len(exponents))
    restored: NDArray[Any] = np.ldexp(x, each.reshape(-1, *[1] * (x.ndim - 2)))
    return restored


def _pairs(graph: onnx.GraphProto) -> list[_Pair]:
    """Layers with constant weights of their own, one of which goes into the other alone."""
    constants = {weight.name: weight for weight in graph.initializer}
    takers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            takers[name].append(node)

    def settled(node: onnx.NodeProto) -> bool:
        own = node.input[1:]
        return all(name in constants and len(takers[name]) == 1 for name in own)

    found = []
    for node in graph.node:
        if node.op_type not in (*_MAPS, "Gemm") or not settled(node):
            continue
        through: list[onnx.NodeProto] = []
        end = node.output[0]
        while len(takers[end]) == 1 and _keeps_channels(takers[end][0], constants):
            through += takers[end]
            end = through[-1].output[0]
        if len(takers[end]) != 1:
            continue
        (taker,) = takers[end]
        if taker.op_type in _MAPS and taker.input[0] == end and settled(taker):
            found.append(_Pair(node, through, taker))
    return found


def _before_shuffle(node: onnx.NodeProto, channels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the channels that a DepthToSpace takes what is known of those that it gives."""
    said = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    times: int = said["blocksize"] ** 2
    side_by_side = said.get("mode", b"DCR") == b"CRD"
    return np.repeat(channels, times) if side_by_side else np.tile(channels, times)


def _keeps_channels(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Does a node go `THROUGH`, all that was one channel being in one?"""
    if node.op_type not in ("Reshape", "Slice"):
        return node.op_type in THROUGH
    place = 1 if node.op_type == "Reshape" else 3  # of the shape, or the axes
    told = constants.get(node.input[place]) if len(node.input) > place else None
    if told is None:
        return False
    numbers = numpy_helper.to_array(told)
    return bool(numbers[0] in (0, -1) if node.op_type == "Reshape" else numbers.min() >= 2)


def _exponents(largest: NDArray[Any], taking: NDArray[Any]) -> NDArray[np.int64]:
    """Of s_c, their mean about zero."""
    logs = [
        np.log2(np.maximum(one, max(_LEAST * one.max(), np.finfo(np.float32).tiny)))
        for one in (largest, taking.max(axis=1))
    ]
    exact = _SHARE * logs[0] - (1 - _SHARE) * logs[1]
    rounded: NDArray[np.int64] = np.rint(exact - exact.mean()).astype(np.int64)
    return rounded


def _scale(weight: onnx.TensorProto, axis: int, exponents: NDArray[np.int64]) -> None:
    """Multiply by powers of two along an axis, each for as many entries as there are of it."""
    array = numpy_helper.to_array(weight)
    each = np.repeat(exponents, array.shape[axis] // len(exponents))
    shape = [-1 if n == axis else 1 for n in range(array.ndim)]
    weight.CopyFrom(numpy_helper.from_array(np.ldexp(array, each.reshape(shape)), weight.name))
