"""float32 ONNX -> int8: static quantisation, QDQ, by onnxruntime's own tool.

Weights are int8 by channel, activations int8 by tensor, symmetric, their ranges calibrated on
latents of the shared stream. The first layer, which sees the latent, and the last, which makes the
image, stay float32, and so do the tail and mixtures of classes.
"""

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ganexport.class_weights import class_products
from ganinfer.errors import missing_extra

_BATCH = 32
_QUANTIZED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def quantize(
    model: bytes, calibration: dict[str, NDArray[Any]], *, keep: Collection[str] = ()
) -> bytes:
    """The same graph with its layers in int8.

    Args:
        model: float32 ONNX file of a `SamplingGraph`.
        calibration: inputs by name, (N, ...) each.
        keep: names of nodes that stay float32, besides the first and the last layer.

    Returns:
        ONNX file with the same inputs and outputs; equal arguments give equal bytes.
    """
    try:
        from onnxruntime.quantization import (
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )
    except ModuleNotFoundError:
        raise missing_extra("onnxruntime") from None
    proto = onnx.load_from_string(model)
    mixing = class_products(proto.graph)
    layers = [n.name for n in proto.graph.node if n.op_type in _QUANTIZED and n.name not in mixing]
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
            nodes_to_exclude=[*layers[:1], *layers[-1:], *mixing, *keep],
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # What TensorRT takes: symmetric int8 throughout, biases in float.
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
            },
        )
        quantized = onnx.load(target)
    del quantized.metadata_props[:]
    quantized.producer_version = ""
    onnx.checker.check_model(quantized, full_check=True)
    return bytes(quantized.SerializeToString(deterministic=True))


class _Calibration:
    """What onnxruntime asks for the next inputs until there are none."""

    def __init__(self, feeds: dict[str, NDArray[Any]]) -> None:
        self._feeds, self._next = feeds, 0

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        rows = slice(self._next, self._next + _BATCH)
        self._next += _BATCH
        feed = {name: np.ascontiguousarray(array[rows]) for name, array in self._feeds.items()}
        return feed if all(len(part) for part in feed.values()) else None

    def __iter__(self) -> "_Calibration":
        return self

    def __next__(self) -> dict[str, NDArray[Any]]:
        if (feed := self.get_next()) is None:
            raise StopIteration
        return feed
