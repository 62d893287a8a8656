"""What quantisation makes of a layer's mean goes back into its bias.

Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 1906.04721,
section 4.2, with means over latents. Each layer sees its exact input, rounded as the variant
rounds it: what is found is its own error, and the errors of all layers are found at once.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ganexport.graph.calibrating import Feed, tensors

_BIASED = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True)
class _Layer:
    """A layer of a variant, and what rounds its input and its weight."""

    node: onnx.NodeProto
    rounding: tuple[onnx.NodeProto, onnx.NodeProto]
    weight: onnx.NodeProto

    @property
    def error(self) -> str:
        """What its mean error is called."""
        return f"{self.node.name}.error"


def correct_biases(quantized: onnx.ModelProto, exact: onnx.ModelProto, calibration: Feed) -> None:
    """Add to the bias of each quantised layer what its results lack on average, in place.

    Args:
        quantized: the variant, made of QuantizeLinear and DequantizeLinear.
        exact: the float32 model that it was made of; tensors have the same names.
        calibration: inputs by name, (N, ...) each.
    """
    layers = _quantized_layers(quantized.graph)
    if not layers:
        return
    both, names = _side_by_side(quantized, exact, layers), [layer.error for layer in layers]
    sums = {name: np.zeros((), np.float64) for name in names}
    for found in tensors(both, [*names, "z"], calibration):
        for name in names:
            sums[name] = sums[name] + found[name].astype(np.float64) * len(found["z"])
    for layer in layers:
        _add_to_bias(quantized.graph, layer.node, sums[layer.error] / len(calibration["z"]))
    used = {name for node in quantized.graph.node for name in node.input}
    needed = [weight for weight in quantized.graph.initializer if weight.name in used]
    del quantized.graph.initializer[:]
    quantized.graph.initializer.extend(needed)


def _quantized_layers(graph: onnx.GraphProto) -> list[_Layer]:
    """Those that have, or may have, a constant bias."""
    constants = {weight.name for weight in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    found = []
    for node in graph.node:
        rounded, weight = (makers.get(name) for name in (*node.input, "", "")[:2])
        if (
            node.op_type in _BIASED
            and rounded is not None
            and weight is not None
            and rounded.op_type == weight.op_type == "DequantizeLinear"
            and weight.input[0] in constants
            and constants.issuperset(node.input[2:])
        ):
            found.append(_Layer(node, (makers[rounded.input[0]], rounded), weight))
    return found


def _side_by_side(
    quantized: onnx.ModelProto, exact: onnx.ModelProto, layers: list[_Layer]
) -> onnx.ModelProto:
    """The exact model, in which each layer is computed as the variant does, too, and subtracted."""
    both = onnx.ModelProto()
    both.CopyFrom(exact)
    graph, there = both.graph, {weight.name for weight in exact.graph.initializer}
    graph.initializer.extend(w for w in quantized.graph.initializer if w.name not in there)
    for axes in ([0], [0, 2, 3]):
        graph.initializer.append(numpy_helper.from_array(np.array(axes), f"axes_{len(axes)}"))
    for layer in layers:
        name, (quantize, dequantize) = layer.node.name, layer.rounding
        integers, numbers, result = (f"{name}.{part}" for part in ("integers", "numbers", "result"))
        rounding = [
            _copy(quantize, list(quantize.input), integers),
            _copy(dequantize, [integers, *dequantize.input[1:]], numbers),
            _copy(layer.weight, list(layer.weight.input), f"{name}.kernel"),
            _copy(layer.node, [numbers, f"{name}.kernel", *layer.node.input[2:]], result),
        ]
        axes_of = "axes_1" if layer.node.op_type == "Gemm" else "axes_3"
        graph.node.extend(rounding)
        graph.node.append(
            helper.make_node("Sub", [layer.node.output[0], result], [f"{name}.difference"])
        )
        graph.node.append(
            helper.make_node(
                "ReduceMean", [f"{name}.difference", axes_of], [layer.error], keepdims=0
            )
        )
    return both


def _copy(node: onnx.NodeProto, inputs: list[str], output: str) -> onnx.NodeProto:
    copy = onnx.NodeProto(op_type=node.op_type, name=output, input=inputs, output=[output])
    copy.attribute.extend(node.attribute)
    return copy


def _add_to_bias(graph: onnx.GraphProto, node: onnx.NodeProto, error: NDArray[np.float64]) -> None:
    """Give a layer a bias of its own."""
    bias = next((w for w in graph.initializer if w.name in node.input[2:]), None)
    exact = error if bias is None else numpy_helper.to_array(bias) + error
    del node.input[2:]
    node.input.append(f"{node.name}.corrected_bias")
    graph.initializer.append(numpy_helper.from_array(exact.astype(np.float32), node.input[2]))
