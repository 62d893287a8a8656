"""float32 ONNX -> int8 or float8 (e4m3fn): static quantisation, QDQ, by onnxruntime's own tool.

Weights are quantised by channel, activations by tensor, symmetric. Their ranges are calibrated on
latents of the shared stream: the largest number of a batch of 32, averaged over batches. The first
layer, which sees the latent, stays float32, and so do the tail, mixtures of classes, and what a
StyleGAN sums over styles. The last layer, which makes the image, takes what is rounded and gives
what is not: its result in int8 is worth 11 dB.

Before, channels are given like ranges (`ganexport.graph.equalize`). After, what is rounded on both
sides of a ReLU has one scale (`ganexport.graph.share_scales`), and biases take what rounding shifts
(`ganexport.graph.correct`). docs/exporting.md has what each is worth.
"""

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from ganexport.graph import equalize
from ganexport.graph.calibrating import Feed, batches
from ganexport.graph.class_weights import class_products
from ganexport.graph.correct import correct_biases
from ganexport.graph.large import require_one_file
from ganexport.graph.macs import node_macs
from ganexport.graph.round_first import round_first
from ganexport.graph.share_scales import share_scales
from ganexport.graph.styles import rename, style_products
from ganinfer.errors import missing_extra
from ganinfer.host.telemetry import quiet_onnxruntime

_QUANTIZED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Of all multiply-accumulates. What has less, as what scales maps by the class, gains nothing from
# being rounded, and goes into every pixel: in BigGAN it is worth 4 dB.
_LEAST_SHARE = 1e-4
_MOVES = ("DepthToSpace", "Reshape", "Resize", "Slice", "Transpose")
_ACTIVATIONS = ("LeakyRelu", "Relu")
_LARGEST = {"int8": 127.0, "fp8": 448.0}
# From this one on a quantisation can do without a zero point and still have a type.
_OPSET_OF_OUTPUT_TYPE = 21


def quantize(
    model: bytes,
    precision: Literal["int8", "fp8"],
    *,
    calibration: Feed,
    keep: Collection[str] = (),
) -> bytes:
    """The same graph with its layers in int8 or float8.

    Args:
        model: float32 ONNX file of a `SamplingGraph`.
        precision: of the layers.
        calibration: inputs by name, (N, ...) each.
        keep: names of nodes that stay float32, besides the first layer; a sum among them takes
            what it adds as it is, see `sums`.

    Returns:
        ONNX file with the same inputs and outputs; equal arguments give equal bytes.
    """
    require_one_file(model, f"{precision} is calibrated in one file: leave it out, or take fp16")
    proto = onnx.load_from_string(model)
    divided = equalize.equalize(proto, calibration)
    if precision == "fp8":
        proto = version_converter.convert_version(proto, _OPSET_OF_OUTPUT_TYPE)
    quantized = to_int8(proto, calibration, keep)
    if precision == "fp8":
        _to_float8(quantized, proto)
    share_scales(quantized, proto, calibration, _LARGEST[precision])
    correct_biases(quantized, proto, calibration)
    if precision == "int8":  # float8 runs on GPUs alone, where movements cost little
        round_first(quantized.graph)
    equalize.record(quantized, divided)
    onnx.checker.check_model(quantized, full_check=True)
    return bytes(quantized.SerializeToString(deterministic=True))


def to_int8(proto: onnx.ModelProto, calibration: Feed, keep: Collection[str]) -> onnx.ModelProto:
    """A float32 model quantised, and no more done about it."""
    try:
        quiet_onnxruntime()
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
    except ModuleNotFoundError as error:
        raise missing_extra("onnxruntime", error) from None
    products = [node.name for node in proto.graph.node if node.op_type in _QUANTIZED]
    in_int8 = [name for name in _rounded(proto) if name not in keep]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        # It asks for shapes and folded constants, which the graph has; so say that it was told.
        proto.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
        source.write_bytes(proto.SerializeToString(deterministic=True))
        quantize_static(
            source,
            target,
            _Calibration(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTIZED),
            nodes_to_exclude=[name for name in products if name not in in_int8],
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # What TensorRT takes: symmetric int8 throughout, biases in float.
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                # One image in hundreds would else make all others coarser.
                "CalibMovingAverage": True,
            },
        )
        quantized = onnx.load(target)
    del quantized.metadata_props[:]
    quantized.producer_version = ""
    for node in proto.graph.node:
        if node.name in products[-1:]:
            _leave_exact(quantized.graph, node.name, node.output[0])
    branches = _branches(proto.graph, in_int8)
    added = [node for name in branches.keys() & keep for node in branches[name]]
    _take_exact(quantized.graph, [*_beside(proto.graph, in_int8), *added])
    return quantized


def sums(model: bytes) -> list[str]:
    """Names of the nodes that add up branches, of which one ends with a layer, as residual blocks'.

    No norm makes up for what their numbers lose.
    """
    proto = onnx.load_from_string(model)
    return list(_branches(proto.graph, _rounded(proto)))


def _rounded(proto: onnx.ModelProto) -> list[str]:
    """Names of the layers that gain by it: not the first, nor what computes next to nothing."""
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    fixed, macs = class_products(graph) | style_products(graph), node_macs(graph)
    layers = [
        (node.name, own)
        for node, own in zip(graph.node, macs, strict=True)
        if node.op_type in _QUANTIZED and node.name not in fixed
    ]
    return [name for name, own in layers[1:] if not 0 < own < _LEAST_SHARE * sum(macs)]


def _branches(graph: onnx.GraphProto, layers: Collection[str]) -> dict[str, list[onnx.NodeProto]]:
    """By the name of each such node it and what moves the numbers just before it."""
    makers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    found = {}
    for node in graph.node:
        if node.op_type != "Add" or not makers.keys() >= set(node.input):
            continue  # a constant makes it a bias
        moves, ends = [], []
        for name in node.input:
            while uses[name] == 1 and name in makers and makers[name].op_type in _MOVES:
                moves.append(makers[name])
                name = moves[-1].input[0]
            ends += [makers[name].name] if name in makers else []
        if not set(ends).isdisjoint(layers):
            found[node.name] = [node, *moves]
    return found


def _beside(graph: onnx.GraphProto, layers: Collection[str]) -> list[onnx.NodeProto]:
    """What takes, and is no layer, a tensor that is computed in float32 and rounded for layers."""
    makers = {name: node for node in graph.node for name in node.output}

    def is_rounded(name: str) -> bool:
        """Does it come of a layer, and of what runtimes make a part of one?"""
        while name in makers and makers[name].op_type in (*_MOVES, *_ACTIVATIONS):
            name = makers[name].input[0]
        return name in makers and makers[name].name in layers

    others = [n for n in graph.node if n.name not in layers and n.op_type not in _MOVES]
    return [node for node in others if not any(map(is_rounded, node.input))]


def _take_exact(graph: onnx.GraphProto, nodes: Collection[onnx.NodeProto]) -> None:
    """Let nodes take what they took before it was rounded."""
    inputs = {node.name: node.input for node in nodes}
    for node in graph.node:
        if node.name in inputs:
            node.input[:] = inputs[node.name]
    for op_type in ("DequantizeLinear", "QuantizeLinear"):  # what nobody takes any more
        taken = {name for node in graph.node for name in node.input}
        for node in [n for n in graph.node if n.op_type == op_type and n.output[0] not in taken]:
            graph.node.remove(node)


def _leave_exact(graph: onnx.GraphProto, layer: str, result: str) -> None:
    """Take out what rounds a layer's result, which gets this name, if anything does."""
    ends = [next(node.output[0] for node in graph.node if node.name == layer)]
    for op_type in ("QuantizeLinear", "DequantizeLinear"):
        for node in [n for n in graph.node if n.op_type == op_type and n.input[0] == ends[-1]]:
            ends.append(node.output[0])
            graph.node.remove(node)
    for name in (ends[0], ends[-1]):
        rename(graph, name, result)


def _to_float8(quantized: onnx.ModelProto, exact: onnx.ModelProto) -> None:
    """Turn int8 into float8 where it stands: the same places and ranges, the exact weights.

    There are no zero points: before one of float8 onnxruntime 1.31 removes a Relu, as it rightly
    does before the lowest int8.
    """
    graph = quantized.graph
    weights = {weight.name: weight for weight in graph.initializer}
    originals = {weight.name: weight for weight in exact.graph.initializer}
    share = np.float32(_LARGEST["int8"] / _LARGEST["fp8"])
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for name in {node.input[1] for node in pairs}:
        scale = numpy_helper.to_array(weights[name]) * share
        weights[name].CopyFrom(numpy_helper.from_array(scale, name))
    zero_points = {node.input.pop() for node in pairs}
    for node in pairs:
        name = node.input[0]
        if node.op_type == "QuantizeLinear":
            dtype = helper.make_attribute("output_dtype", TensorProto.FLOAT8E4M3FN)
            node.attribute.append(dtype)
        elif name in weights:
            original = numpy_helper.to_array(originals[name.removesuffix("_quantized")])
            scale = _along_axis(node, numpy_helper.to_array(weights[node.input[1]]), original.ndim)
            array = (original / scale).astype(ml_dtypes.float8_e4m3fn)
            weights[name].CopyFrom(numpy_helper.from_array(array, name))
    needed = [weight for weight in graph.initializer if weight.name not in zero_points]
    del graph.initializer[:], graph.value_info[:]  # the latter speak of int8
    graph.initializer.extend(needed)


def _along_axis(node: onnx.NodeProto, scale: NDArray[Any], ndim: int) -> NDArray[Any]:
    """A scale by channel, in the shape in which it divides the weight of a DequantizeLinear."""
    if scale.ndim == 0:
        return scale
    axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
    shape = [1] * ndim
    shape[axis] = -1
    return scale.reshape(shape)


class _Calibration:
    """What onnxruntime asks for the next inputs until there are none."""

    def __init__(self, feed: Feed) -> None:
        self._batches = batches(feed)

    def get_next(self) -> Feed | None:
        return next(self._batches, None)

    def __iter__(self) -> Iterator[Feed]:
        return self._batches

    def __next__(self) -> Feed:
        return next(self._batches)
