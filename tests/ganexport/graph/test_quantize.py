"""What is done around quantisation: equal channels, one scale at a ReLU, corrected biases."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ganexport.graph import equalize
from ganexport.graph.calibrating import tensors
from ganexport.graph.correct import correct_biases
from ganexport.graph.quantize import quantize

RNG = np.random.default_rng(0)
CALIBRATION = {"z": RNG.standard_normal((48, 4)).astype(np.float32)}


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Four layers, z (N, 4) -> a map of 2x2 -> y; two of them int8, channels of unlike ranges."""
    spread = np.exp2(np.arange(8) - 4).astype(np.float32)
    weights = {
        "a.weight": RNG.standard_normal((4, 32)) * np.repeat(spread, 4),
        "a.bias": RNG.standard_normal(32),
        "b.weight": RNG.standard_normal((8, 4, 2, 2)),
        "b.bias": RNG.standard_normal(4) - 1,
        "c.weight": RNG.standard_normal((6, 4, 1, 1)),
        "d.weight": RNG.standard_normal((3, 6, 1, 1)),
    }
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    shape = numpy_helper.from_array(np.array([0, 8, 2, 2]), "shape")
    nodes = [
        helper.make_node("Gemm", ["z", "a.weight", "a.bias"], ["a"], "a"),
        helper.make_node("Reshape", ["a", "shape"], ["a_map"], "a.map"),
        helper.make_node("LeakyRelu", ["a_map"], ["a_leaky"], "a.leaky"),
        helper.make_node("ConvTranspose", ["a_leaky", "b.weight", "b.bias"], ["b"], "b"),
        helper.make_node("Relu", ["b"], ["b_relu"], "b.relu"),
        helper.make_node("Conv", ["b_relu", "c.weight"], ["c"], "c"),
        helper.make_node("Relu", ["c"], ["c_relu"], "c.relu"),
        helper.make_node("Conv", ["c_relu", "d.weight"], ["y"], "d"),
    ]
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 3, 3])
    given = [shape, *(numpy_helper.from_array(array, name) for name, array in arrays.items())]
    graph = helper.make_graph(nodes, "g", [z], [y], given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def values(model: onnx.ModelProto, *names: str) -> list[np.ndarray]:
    found = list(tensors(model, names, CALIBRATION))
    return [np.concatenate([batch[name] for batch in found]) for name in names]


def int8(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.load_from_string(
        quantize(model.SerializeToString(), "int8", calibration=CALIBRATION)
    )


def test_equalized_channels_change_no_bit(model: onnx.ModelProto) -> None:
    equalized = copy_of(model)
    divided = equalize.equalize(equalized, CALIBRATION)
    assert set(divided) == {"a", "a_map", "a_leaky", "b", "b_relu", "c", "c_relu"}
    np.testing.assert_array_equal(*values(equalized, "y"), *values(model, "y"))
    for name, before, after in zip(
        divided, values(model, *divided), values(equalized, *divided), strict=True
    ):
        np.testing.assert_array_equal(equalize.multiplied(after, divided[name]), before)

    def spread(x: np.ndarray) -> float:
        largest = np.abs(x).max(axis=(0, 2, 3))
        return float(largest.max() / largest.min())

    assert spread(*values(equalized, "a_map")) < spread(*values(model, "a_map")) / 4


def test_a_variant_says_what_its_channels_were_divided_by(model: onnx.ModelProto) -> None:
    divided = equalize.equalize(copy_of(model), CALIBRATION)
    assert equalize.divided_by(int8(model)) == divided
    assert equalize.divided_by(model) == {}


@pytest.mark.parametrize("what", ["transposed", "grouped", "depth first", "cut", "blurred"])
def test_channels_in_another_order_are_left_alone(what: str) -> None:
    """And a weight that lies the other way round is not."""
    spread = np.exp2(np.arange(16) - 8).astype(np.float32)
    weight = RNG.standard_normal((4, 64)) * np.repeat(spread, 4)
    between = {
        "transposed": helper.make_node("Relu", ["a_map"], ["x"], "x"),
        "grouped": helper.make_node("Relu", ["a_map"], ["x"], "x"),
        "blurred": helper.make_node("Relu", ["a_map"], ["x"], "x"),
        "depth first": helper.make_node("DepthToSpace", ["a_map"], ["x"], "x", blocksize=2),
        "cut": helper.make_node("Slice", ["a_map", "starts", "ends", "axes"], ["x"], "x"),
    }[what]
    inner = {"depth first": 4, "cut": 8, "grouped": 4, "blurred": 1}.get(what, 16)
    outer = {"grouped": 8, "blurred": 16}.get(what, 3)
    arrays = {
        "a.weight": (weight.T if what == "transposed" else weight).astype(np.float32),
        "b.weight": RNG.standard_normal((outer, inner, 1, 1)).astype(np.float32),
        "shape": np.array([0, 16, 2, 2]),
        "starts": np.array([8]),
        "ends": np.array([16]),
        "axes": np.array([1]),
    }
    groups = {"grouped": 4, "blurred": 16}.get(what, 1)
    nodes = [
        helper.make_node("Gemm", ["z", "a.weight"], ["a"], "a", transB=int(what == "transposed")),
        helper.make_node("Reshape", ["a", "shape"], ["a_map"], "a.map"),
        between,
        helper.make_node("Conv", ["x", "b.weight"], ["y"], "b", group=groups),
    ]
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    given = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    opset = [helper.make_opsetid("", 18)]
    graph = helper.make_graph(nodes, "g", [z], [y], given)
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    equalized = copy_of(model)
    divided = equalize.equalize(equalized, CALIBRATION)
    assert bool(divided) == (what == "transposed")
    np.testing.assert_array_equal(*values(equalized, "y"), *values(model, "y"))


def test_a_layer_that_goes_two_ways_is_left_alone(model: onnx.ModelProto) -> None:
    forked = copy_of(model)
    forked.graph.node.append(helper.make_node("Abs", ["b_relu"], ["more"], "more"))
    assert "b" not in equalize.equalize(forked, CALIBRATION)


def test_what_is_rounded_before_a_relu_is_rounded_as_after_it(model: onnx.ModelProto) -> None:
    graph = int8(model).graph
    roundings = {node.input[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    # Between two layers in int8 one scale; before a float one that of the numbers above zero.
    assert roundings["b"].input[1] == roundings["b_relu"].input[1]
    scales = {weight.name: weight for weight in graph.initializer}
    scale = float(numpy_helper.to_array(scales[roundings["c"].input[1]]))
    equalized = copy_of(model)
    equalize.equalize(equalized, CALIBRATION)
    largest = [float(batch["c"].max()) for batch in tensors(equalized, ["c"], CALIBRATION)]
    assert scale == pytest.approx(np.mean(largest) / 127, rel=1e-6)


def test_corrected_biases_have_no_mean_error_left(model: onnx.ModelProto) -> None:
    quantized, again = int8(model), int8(model)
    biases = {w.name: numpy_helper.to_array(w) for w in quantized.graph.initializer}
    exact = copy_of(model)
    equalize.equalize(exact, CALIBRATION)
    correct_biases(again, exact, CALIBRATION)
    for weight in again.graph.initializer:
        if weight.name.endswith("corrected_bias"):
            np.testing.assert_allclose(
                numpy_helper.to_array(weight), biases[weight.name], rtol=0, atol=1e-5
            )
    assert {"b.corrected_bias", "c.corrected_bias"} <= set(biases)


def test_equal_arguments_give_equal_bytes(model: onnx.ModelProto) -> None:
    assert int8(model).SerializeToString() == int8(model).SerializeToString()
