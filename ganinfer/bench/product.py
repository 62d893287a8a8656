"""An ONNX file of one product of matrices, written as protobuf lays it out: no onnx is needed.

Field numbers are those of onnx.proto3.
"""

import numpy as np
from numpy.typing import NDArray

_FLOAT, _INT8, _FLOAT16 = 1, 3, 10  # TensorProto.DataType
_TYPES = {"fp16": _FLOAT16}
_STEP = np.float32(1 / 32)  # of int8: four standard deviations fit
_IR_VERSION, _OPSET = 8, 17


def product(precision: str, weight: NDArray[np.float32]) -> bytes:
    """The file of images = z @ weight, (N, K) and (K, K), all of one type.

    Args:
        precision: "fp16" or "int8", of which both sides are quantised, as in a bundle; any other
            is float32.
        weight: float32 (K, K).
    """
    if precision == "int8":
        steps = np.clip(np.rint(weight / _STEP), -127, 127).astype(np.int8)
        graph = [
            _node("QuantizeLinear", "z", "step", "zero", gives="z_steps"),
            _node("DequantizeLinear", "z_steps", "step", "zero", gives="left"),
            _node("DequantizeLinear", "steps", "step", "zero", gives="right"),
            _node("MatMul", "left", "right", gives="images"),
            _weight("steps", _INT8, steps),
            _weight("step", _FLOAT, _STEP),
            _weight("zero", _INT8, np.int8(0)),
        ]
    else:
        numbers = weight.astype(np.float16 if precision == "fp16" else np.float32)
        graph = [
            _node("MatMul", "z", "weight", gives="images"),
            _weight("weight", _TYPES.get(precision, _FLOAT), numbers),
        ]
    kind = _TYPES.get(precision, _FLOAT)
    graph += [_text(2, "product"), _matrix(11, "z", kind), _matrix(12, "images", kind)]
    opset = _text(1, "") + _integer(2, _OPSET)
    return _integer(1, _IR_VERSION) + _part(7, b"".join(graph)) + _part(8, opset)


def _node(op: str, *takes: str, gives: str) -> bytes:
    names = b"".join(_text(1, name) for name in takes)
    return _part(1, names + _text(2, gives) + _text(3, gives) + _text(4, op))


def _weight(name: str, kind: int, array: NDArray[np.generic] | np.generic) -> bytes:
    dims = b"".join(_integer(1, dim) for dim in array.shape)
    return _part(5, dims + _integer(2, kind) + _text(8, name) + _part(9, array.tobytes()))


def _matrix(field: int, name: str, kind: int) -> bytes:
    """An input or an output of two dimensions that are not fixed."""
    dims = b"".join(_part(1, _text(2, dim)) for dim in ("rows", "columns"))
    return _part(field, _text(1, name) + _part(2, _part(1, _integer(1, kind) + _part(2, dims))))


def _text(field: int, text: str) -> bytes:
    return _part(field, text.encode())


def _part(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
