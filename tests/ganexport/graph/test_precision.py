import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ganexport.graph.precision import convert, emulate, layers, tensors_of_type
from ganexport.graph.tracing import bake, to_onnx
from ganexport.options import ExportOptions
from ganexport.pipeline import export
from ganexport.proof.numeric import accuracy
from ganexport.proof.sensitivity import keep_worst_layers
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_run
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import ExportError
from gantrain.runs.checkpoint import load_generator


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
        convert(graph, "fp4")


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


@pytest.fixture(scope="module")
def subject(run: Path) -> Subject:
    return of_run(load_generator(run))


@pytest.fixture(scope="module")
def calibration(subject: Subject) -> dict[str, np.ndarray]:
    return {"z": draw_latents(range(10**6, 10**6 + 128), 16), "y": np.arange(128) % 3}


def test_layers_are_called_as_the_generators(graph: bytes) -> None:
    assert layers(graph) == ["project", "ups.0", "to_image"]


def test_bf16_keeps_transposed_convolutions_and_the_tail_in_float32(graph: bytes) -> None:
    model = onnx.load_from_string(convert(graph, "bf16"))
    types = {w.name: w.data_type for w in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ConvTranspose":
            assert types[node.input[1]] == TensorProto.FLOAT
    assert TensorProto.BFLOAT16 in types.values()
    assert model.opset_import[0].version == 22


def test_an_emulated_bfloat16_rounds_every_result() -> None:
    """x * 1.01 + 0.001 in bfloat16, by hand."""
    import ml_dtypes
    import onnx.parser

    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 22]>
        g (float[n] f) => (float[n] y)
        { x = Cast<to = 16>(f)
          m = Mul(x, a)
          s = Add(m, b)
          y = Cast<to = 1>(s) }"""
    )
    half = ml_dtypes.bfloat16
    for name, value in (("a", 1.01), ("b", 0.001)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, half), name))
    import onnxruntime

    x = np.linspace(-3, 3, 101).astype(np.float32)
    session = onnxruntime.InferenceSession(emulate(model.SerializeToString(), "bf16"))
    found = session.run(None, {"f": x})[0]
    product = (x.astype(half).astype(np.float32) * np.float32(half(1.01))).astype(half)
    expected = (product.astype(np.float32) + np.float32(half(0.001))).astype(half)
    assert np.array_equal(found, expected.astype(np.float32))


def emulated(graph: str, feed: dict[str, np.ndarray], level: str) -> dict[str, np.ndarray]:
    """Every tensor of an fp16 graph, emulated, at one of onnxruntime's levels of optimisation."""
    import onnx.parser
    import onnxruntime

    half = onnx.parser.parse_model(graph)
    run = onnx.load_from_string(emulate(half.SerializeToString(), "fp16"))
    names = [name for node in half.graph.node for name in node.output]
    del run.graph.output[:]
    run.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(run.SerializeToString(), options)
    return dict(zip(names, session.run(None, feed), strict=True))


LEVELS = ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"]


@pytest.mark.parametrize("level", LEVELS)
def test_an_emulated_fp16_gives_what_numpys_float16_gives(level: str) -> None:
    """Node by node, with results beyond 65,504 and below the smallest normal number."""
    rng = np.random.default_rng(0)
    f = (rng.standard_normal((500, 3)) * np.exp(rng.uniform(-12, 7, (500, 3)))).astype(np.float32)
    found = emulated(
        """<ir_version: 8, opset_import: ["" : 20]>
        g (float[n, 3] f) => (float[n, 3] y)
        < float[3] wide = {1.01, -3.3, 0.007}, float[1] narrow = {0.001}, int64[1] axis = {1} >
        { x = Cast<to = 10>(f)
          a = Cast<to = 10>(wide)
          b = Cast<to = 10>(narrow)
          m = Mul(x, a)
          s = Add(m, b)
          d = Sub(s, x)
          r = Relu(d)
          q = Mul(d, d)
          t = Sqrt(q)
          e = Div(x, t)
          l = ReduceL2(x, axis)
          c = ReduceMax(q)
          y = Cast<to = 1>(e) }""",
        {"f": f},
        level,
    )
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        x = f.astype(np.float16)
        a, b = np.array([1.01, -3.3, 0.007], np.float16), np.array([0.001], np.float16)
        m = x * a
        s = m + b
        d = s - x
        q = d * d
        t = np.sqrt(q)
        squares = (x * x).astype(np.float32)
        total = (squares[:, :1] + squares[:, 1:2] + squares[:, 2:]).astype(np.float16)
        e = x / t
        expected = {
            "x": x, "a": a, "b": b, "m": m, "s": s, "d": d, "r": np.maximum(d, np.float16(0)),
            "q": q, "t": t, "e": e, "l": np.sqrt(total), "c": q.max().reshape(1, 1), "y": e,
        }  # fmt: skip
    tiny = np.abs(q) < np.finfo(np.float16).tiny
    assert np.isinf(q).any()
    assert np.isinf(total).any()
    assert (tiny & (q != 0)).any()
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.array_equal(found[name], values.astype(np.float32), equal_nan=True), name


@pytest.mark.parametrize("level", LEVELS)
def test_no_optimisation_of_onnxruntime_takes_the_rounding_out(level: str) -> None:
    """A root of a square that overflows in between; 300 if the casts were dropped."""
    found = emulated(
        """<ir_version: 8, opset_import: ["" : 20]>
        g (float[n] f) => (float[n] y)
        { x = Cast<to = 10>(f)
          squares = Mul(x, x)
          root = Sqrt(squares)
          y = Cast<to = 1>(root) }""",
        {"f": np.array([300, 3, 1e-4, 65504], np.float32)},
        level,
    )
    assert found["y"].tolist() == [np.inf, 3, 0, np.inf]


def test_a_product_is_summed_in_float32_and_rounded_once() -> None:
    """4,096 and a thousand halves: in half precision every one of them would be lost."""
    found = emulated(
        """<ir_version: 8, opset_import: ["" : 20]>
        g (float[n, k] f) => (float[n] y)
        < int64[1] axis = {1} >
        { x = Cast<to = 10>(f)
          total = ReduceSum<keepdims = 0>(x, axis)
          y = Cast<to = 1>(total) }""",
        {"f": np.array([[4096] + 1000 * [0.5]], np.float32)},
        "ORT_ENABLE_ALL",
    )
    assert found["y"].tolist() == [4596]


def test_nodes_that_are_no_layers_can_be_kept_in_float32(graph: bytes) -> None:
    relu = next(n for n in onnx.load_from_string(graph).graph.node if n.op_type == "Relu")
    model = onnx.load_from_string(convert(graph, "fp16", keep=[relu.name]))
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in typed.value_info}
    assert types[relu.output[0]] == TensorProto.FLOAT
    others = [n for n in model.graph.node if n.op_type == "Relu" and n.name != relu.name]
    assert {types[n.output[0]] for n in others} == {TensorProto.FLOAT16}


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [("fp16", 60, 110), ("bf16", 40, 90), ("int8", 25, 80), ("fp8", 25, 80)],
)
def test_other_precisions_are_near_and_not_equal(
    subject: Subject, graph: bytes, calibration, precision, least, most
) -> None:
    variant = convert(graph, precision, calibration=calibration)
    assert least < accuracy(subject, variant, precision, num_images=64)[0] < most
    assert convert(graph, precision, calibration=calibration) == variant  # to the byte


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_quantisation_keeps_the_first_layer_and_the_last_ones_result(
    graph: bytes, calibration, precision: str
) -> None:
    model = onnx.load_from_string(convert(graph, precision, calibration=calibration))
    makers = {name: node for node in model.graph.node for name in node.output}
    quantized = {
        node.name
        for node in model.graph.node
        if node.op_type == "ConvTranspose"
        and getattr(makers.get(node.input[1]), "op_type", "") == "DequantizeLinear"
    }
    assert quantized == {"ups.0", "to_image"}
    (image,) = next(node.output for node in model.graph.node if node.name == "to_image")
    assert [n.op_type for n in model.graph.node if image in n.input] == ["Tanh"]
    inputs = Inputs(calibration["z"][:8], calibration["y"][:8])
    images = OnnxRuntimeBackend(model.SerializeToString(), "cpu", precision).run(inputs)
    assert images.dtype == np.uint8


def test_float8_weights_are_the_nearest_to_the_exact_ones(graph: bytes, calibration) -> None:
    """Three bits of mantissa: at most 1/16 off, but for what is tiny beside its channel."""
    model = onnx.load_from_string(convert(graph, "fp8", calibration=calibration))
    found = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    exact = {
        w.name: numpy_helper.to_array(w) for w in onnx.load_from_string(graph).graph.initializer
    }
    scale = found["generator.ups.0.weight_scale"][None, :, None, None]
    weight = found["generator.ups.0.weight_quantized"].astype(np.float32) * scale
    error = np.abs(weight - exact["generator.ups.0.weight"])
    assert np.all(error <= np.maximum(np.abs(weight) / 15, scale * 2.0**-9))


def test_no_optimisation_of_onnxruntime_changes_a_float8_graph(graph: bytes, calibration) -> None:
    """With zero points it would take the Relu before each quantisation for superfluous."""
    import onnxruntime

    variant = convert(graph, "fp8", calibration=calibration)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    feed = {name: array[:8] for name, array in calibration.items()}
    plain = onnxruntime.InferenceSession(variant, options).run(None, feed)[0]
    optimised = onnxruntime.InferenceSession(variant).run(None, feed)[0]
    assert np.abs(plain.astype(int) - optimised).max() <= 1


def test_the_search_keeps_layers_until_the_target_is_met(
    subject: Subject, graph: bytes, calibration
) -> None:
    plain, _ = accuracy(
        subject, convert(graph, "int8", calibration=calibration), "int8", num_images=64
    )
    easy = keep_worst_layers(subject, graph, "int8", plain - 1, calibration=calibration)
    assert easy.layers == {}
    assert easy.psnr_db == pytest.approx(plain)
    hard = keep_worst_layers(subject, graph, "int8", plain + 20, calibration=calibration)
    assert "ups.0" in hard.layers
    assert hard.psnr_db >= plain + 20
    with pytest.raises(ExportError, match="with every layer in fp32, and 999 are asked for"):
        keep_worst_layers(subject, graph, "fp16", 999, calibration=calibration)


class Outlying(torch.nn.Module):
    """Of what the last layer is given one number is far off, and multiplied by zeros.

    Or of the last layer's weights, and it multiplies zeros.
    """

    def __init__(self, given: float, weight: float, residual: bool) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 64), torch.nn.Linear(64, 64)
        self.last = torch.nn.Linear(64, 3 * 8 * 8)
        self.second.weight.data *= 5
        self.residual = residual
        self.second.bias.data[63] = given
        self.last.weight.data[:, 63] = weight

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        first = self.first(z).relu()
        x = first + self.second(first) if self.residual else self.second(first).relu()
        return self.last(x).tanh().view(-1, 3, 8, 8)


@pytest.mark.parametrize(
    ("given", "weight", "residual", "expected"),
    [
        (-100.0, 1.0, False, []),
        (-100.0, 1000.0, False, ["last"]),
        (1000.0, 0.0, True, ["last", "node_add_9"]),
    ],
)
def test_what_nothing_makes_up_for_is_in_int8_if_the_gates_then_pass(
    tmp_path: Path, given: float, weight: float, residual: bool, expected: list[str]
) -> None:
    torch.manual_seed(0)
    options = ExportOptions(precisions=["int8"], num_images=1000)
    network = Outlying(given, weight, residual)
    exported = export(network, Spec(8), tmp_path / "x.gan", options)
    with Bundle(tmp_path / "x.gan") as bundle:
        nodes = onnx.load_from_string(bundle.read_graph("int8")).graph.node
        told = json.loads(bundle.read("parity.json"))["kept_in_fp32"]
    rounded = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    layers_in_int8 = {node.name for node in nodes if rounded.issuperset(node.input[:2])}
    assert "second" in layers_in_int8
    assert ("last" in layers_in_int8) == ("last" not in expected)
    if not expected:
        assert told == exported.kept == {}
        return
    assert list(exported.kept["int8"].for_gates) == expected
    assert "PSNR, dB" in exported.kept["int8"].for_gates["last"]
    assert told["int8"]["for_gates"] == exported.kept["int8"].for_gates
    if residual:
        (added,) = (node for node in nodes if node.name == "node_add_9")
        assert rounded.isdisjoint(added.input[1:])


def test_attention_in_half_precision_opens() -> None:
    """Its fusions crash onnxruntime's process."""

    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(8, 16 * 16)
            self.layer = torch.nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
            self.last = torch.nn.Linear(16, 12)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            x = self.last(self.layer(self.first(z).view(-1, 16, 16)))
            return torch.tanh(torch.nn.functional.pixel_shuffle(x.mT.reshape(-1, 12, 4, 4), 2))

    torch.manual_seed(0)
    network = Tokens().eval()
    graph = convert(to_onnx(network, z_dim=8, num_classes=0), "fp16")
    z = draw_latents(range(2), 8)
    found = OnnxRuntimeBackend(graph, "cpu", "fp16").run(Inputs(z))
    assert found.shape == (2, 8, 8, 3)


def test_an_operator_that_a_type_does_not_have_stays_float32() -> None:
    """ONNX has no Einsum in bfloat16."""

    class Mixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = torch.nn.Linear(8, 48), torch.nn.Linear(16, 16)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            x = self.first(z).view(-1, 3, 16)
            x = torch.einsum("ncd,nkd->nck", x, x).softmax(-1) @ x
            return torch.tanh(self.last(x)).view(-1, 3, 4, 4)

    torch.manual_seed(0)
    graph = convert(to_onnx(Mixed().eval(), z_dim=8, num_classes=0), "bf16")
    model = onnx.load_from_string(graph)
    halves = tensors_of_type(model, onnx.TensorProto.BFLOAT16)
    (einsum,) = (node for node in model.graph.node if node.op_type == "Einsum")
    assert not halves.intersection(einsum.output)
    last = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul")][-1]
    assert halves.intersection(last.input)


def test_what_onnx_does_not_take_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise onnx.shape_inference.InferenceError("(op_type:Einsum) has unsupported type\nmore")

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", refuse)
    network = torch.nn.Sequential(torch.nn.Linear(8, 48), torch.nn.Unflatten(1, (3, 4, 4)))
    graph = to_onnx(network.eval(), z_dim=8, num_classes=0)
    with pytest.raises(ExportError, match="bf16: ONNX does not take the graph: .*; leave bf16 out"):
        convert(graph, "bf16")
