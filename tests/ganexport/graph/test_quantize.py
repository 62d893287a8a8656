"""What is done around quantisation: equal channels, one scale at a ReLU, corrected biases."""

from collections import defaultdict

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ganexport.graph import equalize
from ganexport.graph.calibrating import tensors
from ganexport.graph.correct import correct_biases
from ganexport.graph.quantize import quantize, sums
from ganexport.graph.tracing import to_onnx
from ganexport.subjects.rewrites import rewrite
from gantrain.models import biggan

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


@pytest.mark.parametrize(
    "what", ["transposed", "shuffled", "depth first", "grouped", "cut", "blurred"]
)
def test_channels_that_are_mixed_are_left_alone(what: str) -> None:
    """And a weight that lies the other way round is not, nor are channels that are shuffled."""
    spread = np.exp2(np.arange(16) - 8).astype(np.float32)
    weight = RNG.standard_normal((4, 64)) * np.repeat(spread, 4)
    between = {
        "transposed": helper.make_node("Relu", ["a_map"], ["x"], "x"),
        "grouped": helper.make_node("Relu", ["a_map"], ["x"], "x"),
        "blurred": helper.make_node("Relu", ["a_map"], ["x"], "x"),
        "depth first": helper.make_node("DepthToSpace", ["a_map"], ["x"], "x", blocksize=2),
        "shuffled": helper.make_node(
            "DepthToSpace", ["a_map"], ["x"], "x", blocksize=2, mode="CRD"
        ),
        "cut": helper.make_node("Slice", ["a_map", "starts", "ends", "axes"], ["x"], "x"),
    }[what]
    inner = {"depth first": 4, "shuffled": 4, "cut": 8, "grouped": 4, "blurred": 1}.get(what, 16)
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
    assert bool(divided) == (what in ("transposed", "shuffled", "depth first"))
    np.testing.assert_array_equal(*values(equalized, "y"), *values(model, "y"))
    for name in divided:
        (before,), (after,) = values(model, name), values(equalized, name)
        np.testing.assert_array_equal(equalize.multiplied(after, divided[name]), before)


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


def moving(between: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Three layers, a map of 2x2 -> "b", which is shuffled to "x" -> y, and the second int8."""
    arrays = {
        "a.weight": RNG.standard_normal((4, 16)),
        "b.weight": RNG.standard_normal((12, 4, 1, 1)),
        "c.weight": RNG.standard_normal((3, 3, 1, 1)),
        "factor": RNG.standard_normal((1, 3, 1, 1)),
    }
    weights = [
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    ]
    bounds = {"shape": [0, 4, 2, 2], "starts": [1, 1], "ends": [-1, -1], "axes": [2, 3]}
    weights += [numpy_helper.from_array(np.array(array), name) for name, array in bounds.items()]
    nodes = [
        helper.make_node("Gemm", ["z", "a.weight"], ["a"], "a"),
        helper.make_node("Reshape", ["a", "shape"], ["a_map"], "a.map"),
        helper.make_node("Conv", ["a_map", "b.weight"], ["b"], "b"),
        *between,
        helper.make_node("Conv", ["x", "c.weight"], ["y"], "c"),
    ]
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 2, 2])
    graph = helper.make_graph(nodes, "g", [z], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def moved(source: str, result: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("DepthToSpace", [source], ["wide"], "shuffle", blocksize=2),
        helper.make_node("Slice", ["wide", "starts", "ends", "axes"], [result], "crop"),
    ]


BETWEEN = {
    "rounded after": [helper.make_node("Relu", ["b"], ["relu"], "relu"), *moved("relu", "x")],
    "rounded before": [
        *moved("b", "narrow"),
        helper.make_node("Mul", ["narrow", "factor"], ["x"], "scaled"),
    ],
}


@pytest.mark.parametrize("between", BETWEEN)
def test_what_is_moved_is_bytes_and_no_number_changes(
    between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    exact = moving(BETWEEN[between])
    found = int8(exact)
    monkeypatch.setattr("ganexport.graph.quantize.round_first", lambda _: None)
    plain = int8(exact)
    makers = {node.output[0]: node.op_type for node in found.graph.node}
    moves = [node for node in found.graph.node if node.op_type in ("DepthToSpace", "Slice")]
    assert [makers[node.input[0]] for node in moves] == ["DequantizeLinear"] * 2
    taken = {node.input[0]: node.op_type for node in found.graph.node}
    assert [taken[node.output[0]] for node in moves] == ["QuantizeLinear"] * 2
    np.testing.assert_array_equal(*values(found, "y"), *values(plain, "y"))
    core = openvino.Core()
    there = [
        core.compile_model(core.read_model(model.SerializeToString(), b""), "CPU")(CALIBRATION)[0]
        for model in (found, plain)
    ]
    np.testing.assert_allclose(*there, rtol=0, atol=1e-5)


def conditional(keep_sums: bool = False) -> onnx.GraphProto:
    """A small BigGAN in int8."""
    torch.manual_seed(0)
    network = rewrite(biggan.Generator(16, 3, 4, width=24, attention=[]).eval())
    graph = to_onnx(network, z_dim=network.z_dim, num_classes=4)
    feed = {
        "z": RNG.standard_normal((4, network.z_dim)).astype(np.float32),
        "y": np.arange(4),
    }
    keep = sums(graph) if keep_sums else ()
    return onnx.load_from_string(quantize(graph, "int8", calibration=feed, keep=keep)).graph


def test_what_scales_maps_by_the_condition_stays_float32() -> None:
    """It computes next to nothing, and every pixel depends on it."""
    found = conditional()
    rounded = {name for n in found.node if n.op_type == "DequantizeLinear" for name in n.output}
    types = {n.name: not rounded.isdisjoint(n.input) for n in found.node if n.op_type == "Conv"}
    assert types["blocks.0.conv2"]
    assert types["to_image"]
    assert not any(types[f"blocks.0.norm2.{part}"] for part in ("scale", "shift"))


@pytest.mark.parametrize("keep_sums", [False, True])
def test_a_sum_of_branches_is_rounded_for_layers_alone(keep_sums: bool) -> None:
    """What it adds is rounded where that makes a layer's result int8, or not at all."""
    found = conditional(keep_sums)
    makers = {name: node for node in found.node for name in node.output}
    before = {
        node.output[0]: makers[makers[node.input[0]].input[0]].name
        for node in found.node
        if node.op_type == "DequantizeLinear" and node.input[0] in makers
    }
    takers = defaultdict(set)
    for node in found.node:
        for name in node.input:
            takers[before.get(name)].add(node.op_type)
    assert takers["node_add_119"] == {"Conv"}  # not the norm after it
    assert takers["blocks.0.conv2"] == (set() if keep_sums else {"Add"})
    assert takers["blocks.0.skip"] == (set() if keep_sums else {"Resize"})
