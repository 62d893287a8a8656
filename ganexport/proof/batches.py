"""Does a graph take any number of images, and does each depend on itself alone?"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ganexport.graph.large import resaved
from ganexport.graph.owners import layers_of
from ganexport.proof.reference import probes
from ganexport.subjects.subject import Subject
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.inputs import Inputs
from ganinfer.errors import BackendUnavailable, ExportError

_TOLERANCE = 1e-2  # of a tensor's largest number; more than rounding in any precision


def check_any_batch(subject: Subject, graph: bytes) -> None:
    """Refuse a graph that does not run for one, two and three images.

    Raises:
        ExportError: it does not; the message says for how many, and what the runtime says.
    """
    backend = OnnxRuntimeBackend(graph, "cpu", "fp32")
    inputs, _ = probes(subject, 3)
    for count in (3, 2, 1):
        try:
            backend.run(inputs.rows(0, count))
        except BackendUnavailable as error:
            raise ExportError(
                f"{subject.where}: its graph fails for {count} images at once: forward does"
                " something else for such a batch, as squeeze() and branches on shapes do; name"
                f" the dimensions, and leave the first alone. {str(error).splitlines()[0][:300]}"
            ) from None


def where_batches_differ(graph: bytes, inputs: Inputs) -> str:
    """In words the first layer that gives another result for an image alone than for one of four.

    Args:
        graph: ONNX file of a `SamplingGraph`, one that onnxruntime's CPU runs.
        inputs: of four images or more.
    """
    model = onnx.load_from_string(graph)
    typed = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    floats = {v.name for v in typed.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    layers = layers_of(model.graph)
    for node, layer in zip(model.graph.node, layers, strict=True):
        for name in node.output:
            if name in floats and _differs(model, graph, name, inputs):
                return (
                    f"layer {layer} ({node.op_type}) makes an image depend on those it is drawn"
                    " with: no mean, norm or shape may be taken over the batch"
                )
    return ""


def _differs(model: onnx.ModelProto, graph: bytes, name: str, inputs: Inputs) -> bool:
    """Is a tensor's row for the second of four images another one for it alone?"""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    backend = OnnxRuntimeBackend(resaved(shown, graph), "cpu", "fp32")
    many: NDArray[Any] = np.nan_to_num(backend.run(inputs.rows(0, 4)))
    alone: NDArray[Any] = np.nan_to_num(backend.run(inputs.rows(1, 2)))
    if many.ndim == 0 or len(many) != 4 or len(alone) != 1:
        return False  # no row for each image
    scale = max(1e-6, float(np.abs(many).max()))
    return bool(np.abs(many[1] - alone[0]).max() > _TOLERANCE * scale)
