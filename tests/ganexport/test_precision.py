from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ganexport.graph import bake, to_onnx
from ganexport.precision import convert
from ganinfer.errors import ExportError
from gantrain.checkpoint import load_generator


@pytest.fixture(scope="module")
def graph(run: Path) -> bytes:
    return to_onnx(bake(load_generator(run)), z_dim=16, num_classes=3)


def test_fp32_is_left_alone(graph: bytes) -> None:
    assert convert(graph, "fp32") is graph


def test_fp16_computes_in_half_up_to_the_tanh(graph: bytes) -> None:
    model = onnx.load_from_string(convert(graph, "fp16"))
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in typed.value_info}
    for node in model.graph.node:
        if node.op_type in ("ConvTranspose", "Relu", "Mul", "Add") and "clamp" not in node.input[0]:
            wanted = TensorProto.FLOAT16
        elif node.op_type in ("Tanh", "Clip", "Round", "Transpose"):
            wanted = TensorProto.FLOAT
        else:
            continue
        if "add_" in node.output[0] and types[node.output[0]] == TensorProto.FLOAT:
            continue  # the tail's own addition
        if node.op_type == "Mul" and types[node.output[0]] == TensorProto.FLOAT:
            continue
        assert types[node.output[0]] == wanted, node.op_type
    big = [w for w in model.graph.initializer if len(w.dims) == 4]
    assert all(w.data_type == TensorProto.FLOAT16 for w in big)


def test_inputs_and_outputs_keep_their_types(graph: bytes) -> None:
    before, after = (onnx.load_from_string(data).graph for data in (graph, convert(graph, "fp16")))
    assert [v.SerializeToString() for v in before.input] == [
        v.SerializeToString() for v in after.input
    ]
    assert [v.name for v in before.output] == [v.name for v in after.output]
    assert after.output[0].type.tensor_type.elem_type == TensorProto.UINT8


def test_the_file_is_about_half_as_large(graph: bytes) -> None:
    assert len(convert(graph, "fp16")) < 0.6 * len(graph)


def test_a_weight_beyond_half_precision_is_refused(graph: bytes) -> None:
    model = onnx.load_from_string(graph)
    for index, weight in enumerate(model.graph.initializer):
        if len(weight.dims) == 4:
            array = numpy_helper.to_array(weight).copy()
            array.flat[0] = 1e6
            model.graph.initializer[index].CopyFrom(numpy_helper.from_array(array, weight.name))
            break
    with pytest.raises(ExportError, match=r"largest value 1e\+06 does not fit fp16"):
        convert(model.SerializeToString(), "fp16")


def test_an_unknown_precision_is_refused(graph: bytes) -> None:
    with pytest.raises(ExportError, match="fp32, fp16"):
        convert(graph, "fp8")


def test_resize_scales_stay_float32() -> None:
    """ONNX defines them so; a converter that halves them makes an invalid model."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    low, high, half = (
        numpy_helper.from_array(np.array(v, np.float32), n)
        for v, n in ((-1, "low"), (1, "high"), (127.5, "half"))
    )
    nodes = [
        helper.make_node("Resize", ["z", "", "scales"], ["big"], mode="nearest"),
        helper.make_node("Tanh", ["big"], ["image"]),
        helper.make_node("Clip", ["image", "low", "high"], ["clipped"]),
        helper.make_node("Add", ["clipped", "high"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "half"], ["scaled"]),
        helper.make_node("Round", ["scaled"], ["rounded"]),
        helper.make_node("Transpose", ["rounded"], ["moved"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["moved"], ["images"], to=TensorProto.UINT8),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 8, 8, 3])],
        [scales, low, high, half],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    converted = onnx.load_from_string(convert(model.SerializeToString(), "fp16"))
    kept = {w.name: w.data_type for w in converted.graph.initializer}
    assert kept["scales"] == TensorProto.FLOAT
