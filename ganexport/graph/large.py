"""ONNX files on both sides of protobuf's 2 GB: beyond it, large weights go into a file beside.

What works on graphs takes and gives the bytes of a file, which are then a `LargeOnnx`. A graph that
is changed and keeps its weights is written by `resaved`, one with other weights by `packed`.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import ml_dtypes  # noqa: F401 - NumPy knows its types from here on
import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ganinfer.bundle.large_onnx import WEIGHTS_SUFFIX, LargeOnnx
from ganinfer.errors import ExportError
from ganinfer.files import sha256_bytes

# Bytes of one file. Protobuf ends at 2 GiB, and what measures a graph adds nodes to it.
LARGEST = (1 << 31) - (1 << 26)
# Bytes of a weight that goes beside. Smaller ones are axes and shapes, which shapes are told from.
LEAST_BESIDE = 1 << 10
_ALIGNMENT = 1 << 12  # a page


def weight_array(weight: TensorProto, graph: bytes) -> NDArray[Any]:
    """The numbers of a weight of a graph, wherever they lie; not to be written to."""
    if weight.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(weight)
    assert isinstance(graph, LargeOnnx)
    place = {entry.key: entry.value for entry in weight.external_data}
    dtype = helper.tensor_dtype_to_np_dtype(weight.data_type)
    flat = np.frombuffer(
        graph.weights, dtype, count=math.prod(weight.dims), offset=int(place["offset"])
    )
    return flat.reshape(tuple(weight.dims))


def weight_bytes(weight: TensorProto) -> int:
    """How many bytes a weight's numbers take."""
    numbers: int = math.prod(weight.dims)
    return numbers * helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize


def file_bytes(graph: bytes) -> int:
    """How many bytes a graph takes, with what lies beside it."""
    return len(graph) + (len(graph.weights) if isinstance(graph, LargeOnnx) else 0)


def resaved(model: onnx.ModelProto, graph: bytes) -> bytes:
    """The file of a model that was made of a graph and has its weights."""
    file = bytes(model.SerializeToString(deterministic=True))
    return LargeOnnx(file, graph.weights, graph.location) if isinstance(graph, LargeOnnx) else file


def packed(model: onnx.ModelProto, graph: bytes) -> bytes:
    """The file of a model that was made of a graph and has other weights; the model is changed.

    Its weights lie in it or, if they are too many for one file, beside it.
    """
    weights = model.graph.initializer
    if sum(map(weight_bytes, weights)) <= LARGEST:
        inline(model, graph)
        return bytes(model.SerializeToString(deterministic=True))
    beside = [weight for weight in weights if weight_bytes(weight) >= LEAST_BESIDE]
    data, location, offsets = _joined(weight_array(weight, graph) for weight in beside)
    for weight, offset in zip(beside, offsets, strict=True):
        length = weight_bytes(weight)
        weight.CopyFrom(
            TensorProto(
                name=weight.name,
                data_type=weight.data_type,
                dims=weight.dims,
                data_location=TensorProto.EXTERNAL,
            )
        )
        place = {"location": location, "offset": offset, "length": length}
        for key, value in place.items():
            weight.external_data.add(key=key, value=str(value))
    return LargeOnnx(model.SerializeToString(deterministic=True), data, location)


def inline(model: onnx.ModelProto, graph: bytes) -> None:
    """Put weights that lie beside a graph into a model that was made of it."""
    for weight in model.graph.initializer:
        if weight.data_location == TensorProto.EXTERNAL:
            array = weight_array(weight, graph)
            weight.CopyFrom(numpy_helper.from_array(array, weight.name))


def split(model: ir.Model) -> tuple[bytes, str] | None:
    """Take the large weights out of an exporter's model, if they are too many for one file.

    The model then names them. They are copied once, into what is returned.

    Returns:
        The other file's content and name, or None.
    """
    values = [v for v in model.graph.initializers.values() if v.const_value is not None]
    tensors = [tensor for value in values if (tensor := value.const_value) is not None]
    if sum(tensor.nbytes for tensor in tensors) <= LARGEST:
        return None
    large = [v for v in values if v.const_value and v.const_value.nbytes >= LEAST_BESIDE]
    data, location, offsets = _joined(v.const_value.numpy() for v in large if v.const_value)
    for value, offset in zip(large, offsets, strict=True):
        tensor = value.const_value
        assert tensor is not None
        value.const_value = ir.ExternalTensor(
            location,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
        )
    return data, location


def check(model: onnx.ModelProto) -> None:
    """As onnx.checker; what lies beside the graph is taken for its inputs.

    Raises:
        onnx.checker.ValidationError: the graph is none.
    """
    beside = [w for w in model.graph.initializer if w.data_location == TensorProto.EXTERNAL]
    if not beside:
        onnx.checker.check_model(model, full_check=True)
        return
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    inside = [w for w in whole.graph.initializer if w.data_location != TensorProto.EXTERNAL]
    del whole.graph.initializer[:]
    whole.graph.initializer.extend(inside)
    whole.graph.input.extend(
        helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in beside
    )
    onnx.checker.check_model(whole, full_check=True)


def require_one_file(graph: bytes, what: str) -> None:
    """Refuse a graph whose weights lie beside it.

    Raises:
        ExportError: they do; what: who cannot take that, and the way out.
    """
    if isinstance(graph, LargeOnnx):
        size = f"{len(graph.weights) / 1e9:.3g} GB"
        raise ExportError(f"the graph has {size} of weights beside it, more than one file; {what}")


def _joined(arrays: Iterable[NDArray[Any]]) -> tuple[bytes, str, Sequence[int]]:
    """Arrays one after the other, each on a page of its own; the name of that file; the places."""
    parts: list[Any] = []
    offsets: list[int] = []
    end = 0
    for array in arrays:
        gap = -end % _ALIGNMENT
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        parts += [bytes(gap), flat]
        offsets.append(end + gap)
        end += gap + flat.nbytes
    data = b"".join(parts)
    return data, f"{sha256_bytes(data)}{WEIGHTS_SUFFIX}", offsets
