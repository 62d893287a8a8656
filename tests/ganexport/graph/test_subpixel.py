"""Convolutions take the place of transposed and narrow ones, and every number stays what it is."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn.functional import conv_transpose2d

from ganexport.graph.calibrating import tensors
from ganexport.graph.owners import layers_of, nodes_of
from ganexport.graph.precision import convert, layers
from ganexport.graph.subpixel import in_precision, to_subpixel
from ganexport.graph.tracing import float_images, to_onnx
from ganinfer.bundle.manifest import Precision
from gantrain.models.dcgan import Generator

RNG = np.random.default_rng(0)
# One kernel of each kind, as torch's options name them: is something cut off?
LAYERS: list[tuple[dict[str, Any], bool]] = [
    ({"kernel": (4, 4), "stride": 2, "padding": 1}, True),
    ({"kernel": (5, 5), "stride": 2, "padding": 2, "output_padding": 1}, False),
    ({"kernel": (5, 5), "stride": 2, "padding": 2}, True),
    ({"kernel": (3, 3), "stride": 2, "padding": 1, "output_padding": 1}, False),
    ({"kernel": (3, 3), "stride": 2, "padding": 1}, True),
    ({"kernel": (2, 2), "stride": 2}, False),
    ({"kernel": (2, 2), "stride": 2, "padding": 1}, True),
    ({"kernel": (6, 6), "stride": 3, "padding": 2, "output_padding": 1}, True),
    ({"kernel": (1, 1), "stride": 2, "output_padding": 1}, False),
    ({"kernel": (6, 6), "stride": 3, "padding": 1, "output_padding": 2}, True),
    ({"kernel": (4, 6), "stride": 2, "padding": (1, 2)}, True),
    ({"kernel": (4, 4), "stride": 2, "padding": 1, "groups": 2}, True),
    ({"kernel": (4, 4), "stride": 2, "padding": 1, "bias": False}, True),
    ({"kernel": (3, 3), "stride": 1, "padding": 1}, False),
    ({"kernel": (4, 4), "stride": 1}, False),
]
LEFT_ALONE: list[dict[str, Any]] = [
    {"kernel": (3, 3), "stride": 2, "dilation": 2},
    {"kernel": (4, 4), "stride": (2, 1), "padding": 1},
    {"kernel": (2, 2), "stride": 2, "padding": 2},  # cuts off whole pixels of the input
]


def pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def layer(
    kernel: tuple[int, int],
    groups: int = 1,
    bias: bool = True,
    channels: int = 6,
    **options: Any,
) -> tuple[bytes, list[np.ndarray]]:
    """A graph of one transposed convolution x (N, 4, 5, 3) -> y, and its weights."""
    shapes = [(4, channels // groups, *kernel), (channels,)][: 1 + bias]
    weights = [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]
    names = ["generator.up.weight", "generator.up.bias"][: 1 + bias]
    node = helper.make_node(
        "ConvTranspose", ["x", *names], ["y"], "up",
        kernel_shape=kernel,
        strides=pair(options["stride"]),
        pads=2 * pair(options.get("padding", 0)),
        output_padding=pair(options.get("output_padding", 0)),
        dilations=pair(options.get("dilation", 1)),
        group=groups,
    )  # fmt: skip
    given = [numpy_helper.from_array(w, n) for w, n in zip(weights, names, strict=True)]
    return file_of([node], given, ["batch", 4, 5, 3]), weights


def file_of(nodes: list[onnx.NodeProto], weights: list[Any], shape: list[Any]) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, None, None])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def operators(graph: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(graph).graph.node]


def run(graph: bytes, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(graph).run(None, {"x": x})[0]


def run_openvino(graph: bytes, x: np.ndarray) -> np.ndarray:
    core = pytest.importorskip("openvino").Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(core.read_model(graph, b""), "CPU", settings)(x)[0]


@pytest.mark.parametrize(("options", "cut"), LAYERS)
def test_it_gives_what_torch_gives(options: dict[str, Any], cut: bool) -> None:
    graph, weights = layer(**options)
    x = RNG.standard_normal((2, 4, 5, 3)).astype(np.float32)
    rest = {name: value for name, value in options.items() if name not in ("kernel", "bias")}
    expected = conv_transpose2d(*map(torch.from_numpy, (x, *weights)), **rest)
    changed = to_subpixel(graph, "int8")
    np.testing.assert_allclose(run(changed, x), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(run_openvino(changed, x), expected, rtol=0, atol=1e-5)
    shuffle = ["DepthToSpace"] * (options["stride"] > 1)
    assert operators(changed) == ["Conv", *shuffle, *["Slice"] * cut]


@pytest.mark.parametrize("options", LEFT_ALONE)
def test_what_has_no_such_form_stays_as_it_is(options: dict[str, Any]) -> None:
    graph, _ = layer(**options)
    assert to_subpixel(graph, "int8") == graph


def test_pads_may_differ_at_the_two_ends() -> None:
    model = onnx.load_from_string(layer((5, 5), stride=2, padding=2)[0])
    next(a for a in model.graph.node[0].attribute if a.name == "pads").ints[:] = [1, 2, 3, 0]
    graph, x = model.SerializeToString(), RNG.standard_normal((2, 4, 5, 3)).astype(np.float32)
    changed = to_subpixel(graph, "int8")
    assert "ConvTranspose" not in operators(changed)
    np.testing.assert_allclose(run(changed, x), run(graph, x), rtol=0, atol=1e-5)


def test_a_latent_is_multiplied_by_a_matrix() -> None:
    model = onnx.load_from_string(layer((4, 4), stride=1)[0])
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 1
    graph, z = model.SerializeToString(), RNG.standard_normal((3, 4, 1, 1)).astype(np.float32)
    changed = to_subpixel(graph, "int8")
    assert operators(changed) == ["Flatten", "Gemm", "Reshape"]
    np.testing.assert_allclose(run(changed, z), run(graph, z), rtol=0, atol=1e-5)


def test_a_weight_that_is_computed_or_shared_stays() -> None:
    weight = numpy_helper.from_array(np.ones((4, 4, 2, 2), np.float32), "w")
    up = {"strides": [2, 2], "kernel_shape": [2, 2]}
    computed = [
        helper.make_node("Neg", ["w"], ["v"]),
        helper.make_node("ConvTranspose", ["x", "v"], ["y"], **up),
    ]
    shared = [
        helper.make_node("ConvTranspose", ["x", "w"], ["a"], **up),
        helper.make_node("ConvTranspose", ["a", "w"], ["y"], **up),
    ]
    for nodes in (computed, shared):
        graph = file_of(nodes, [weight], ["batch", 4, "height", "width"])
        assert to_subpixel(graph, "int8") == graph


@pytest.fixture(scope="module")
def dcgan() -> bytes:
    torch.manual_seed(0)
    return to_onnx(Generator(16, 3, 0, z_dim=8, width=4).eval(), z_dim=8, num_classes=0)


def test_layers_and_their_results_keep_their_names(dcgan: bytes) -> None:
    changed = to_subpixel(dcgan, "int8")
    assert layers(changed) == layers(dcgan) == ["project", "ups.0", "to_image"]
    before, after = (onnx.load_from_string(one).graph for one in (dcgan, changed))
    results = {name for node in after.node for name in node.output}
    lost = {name for node in before.node for name in node.output} - results
    pointwise = ("Relu", "Tanh", "Clip", "Add", "Mul", "Round")  # what comes before a shuffle now
    moved = {node.output[0]: node.input[0] for node in before.node if node.op_type in pointwise}
    assert lost <= set(moved.values())
    assert {"relu_1", "round_1"} <= results
    assert set(layers_of(after)) == set(layers_of(before))
    assert {"ups.0", "ups.0.shuffle", "ups.0.crop"} <= nodes_of(changed, ["ups.0"])


def test_it_is_made_for_the_precisions_in_which_it_pays(dcgan: bytes) -> None:
    changed = to_subpixel(dcgan, "int8")
    assert changed == to_subpixel(dcgan, "int8")
    assert in_precision(dcgan, "bf16") == in_precision(dcgan, "int8") == changed
    assert in_precision(dcgan, "bf16", ["subpixel"]) is dcgan
    # A latent is multiplied by a matrix in every precision; what else is not worth it stays.
    fp16 = operators(in_precision(dcgan, "fp16"))
    assert (fp16.count("Gemm"), fp16.count("ConvTranspose"), fp16.count("Conv")) == (1, 2, 0)
    # A transposed convolution is float32 in a bfloat16 graph, between two casts.
    casts = [operators(convert(one, "bf16")).count("Cast") for one in (changed, dcgan)]
    assert casts[0] < casts[1]


UP = {"kernel": (4, 4), "stride": 2, "padding": 1}
FORMS_IN_FP32: list[tuple[dict[str, Any], list[str]]] = [
    ({**UP, "channels": 16}, [*["Conv"] * 4, "Concat", "DepthToSpace"]),
    ({**UP, "channels": 16, "groups": 2}, [*["Conv"] * 4, "Concat", "DepthToSpace"]),
    ({**UP, "channels": 16, "bias": False}, [*["Conv"] * 4, "Concat", "DepthToSpace"]),
    (
        {"kernel": (6, 6), "stride": 3, "padding": 2, "output_padding": 1, "channels": 16},
        [*["Conv"] * 9, "Concat", "DepthToSpace"],
    ),
    ({"kernel": (2, 2), "stride": 2, "channels": 16}, ["Conv", "DepthToSpace"]),
    ({**UP, "channels": 3}, ["ConvTranspose"]),  # few channels, little to compute
    ({**UP, "kernel": (60, 60), "padding": 29, "channels": 3}, ["Conv", "DepthToSpace", "Slice"]),
    ({**UP, "kernel": (5, 5), "channels": 16}, ["ConvTranspose"]),
    ({**UP, "kernel": (2, 2), "channels": 16}, ["ConvTranspose"]),  # a phase needs less than no pad
]


@pytest.mark.parametrize(("options", "form"), FORMS_IN_FP32)
def test_in_fp32_the_form_depends_on_the_layer(options: dict[str, Any], form: list[str]) -> None:
    graph, _ = layer(**options)
    x = RNG.standard_normal((2, 4, 5, 3)).astype(np.float32)
    changed = to_subpixel(graph, "fp32")
    assert operators(changed) == form
    expected = run(graph, x)
    scale = max(1.0, float(np.abs(expected).max()))
    for found in (run(changed, x), run_openvino(changed, x)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def test_a_large_map_or_kernel_stays_in_fp32() -> None:
    graph, _ = layer(**UP, channels=16)
    model = onnx.load_from_string(graph)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 22
    assert to_subpixel(model.SerializeToString(), "fp32") == model.SerializeToString()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    assert to_subpixel(model.SerializeToString(), "fp32") == model.SerializeToString()


def test_what_is_computed_pixel_by_pixel_comes_before_the_shuffle(dcgan: bytes) -> None:
    """There it is a part of the convolution; of bfloat16 the tanh stays float32, to the image."""
    changed = to_subpixel(dcgan, "bf16")
    made = operators(changed)
    assert made[made.index("Conv") :][:4] == ["Conv", "Relu", "DepthToSpace", "Slice"]
    tail = ["Tanh", "Clip", "Add", "Mul", "Round", "DepthToSpace", "Slice", "Transpose", "Cast"]
    assert made[made.index("Tanh") :] == tail
    z = RNG.standard_normal((4, 8)).astype(np.float32)
    expected, found = (
        onnxruntime.InferenceSession(one).run(None, {"z": z})[0].astype(int)
        for one in (dcgan, changed)
    )
    assert np.abs(found - expected).max() <= 1
    typed = onnx.shape_inference.infer_shapes(
        onnx.load_from_string(convert(changed, "bf16")), data_prop=True
    ).graph
    types = {value.name: value.type.tensor_type.elem_type for value in typed.value_info}
    behind = typed.node[[node.op_type for node in typed.node].index("Tanh") :]
    assert [types[node.output[0]] for node in behind[:-1]] == [TensorProto.FLOAT] * 8


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_float_images_are_in_their_places(precision: Precision) -> None:
    """Of a graph that clips before it shuffles, too."""
    torch.manual_seed(0)
    network = Generator(32, 3, 0, z_dim=8, width=16).eval()
    exact = to_onnx(network, z_dim=8, num_classes=0)
    z = RNG.standard_normal((4, 8)).astype(np.float32)
    model = onnx.load_from_string(to_subpixel(exact, precision))
    name = float_images(model)
    (found,) = (batch[name] for batch in tensors(model, [name], {"z": z}))
    with torch.no_grad():
        expected = network(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_an_activation_with_a_weight_stays_behind_the_shuffle() -> None:
    model = onnx.load_from_string(layer(**UP)[0])
    model.graph.node[0].output[0] = "up"
    slope = numpy_helper.from_array(RNG.standard_normal((6, 1, 1)).astype(np.float32), "slope")
    model.graph.initializer.append(slope)
    model.graph.node.append(helper.make_node("Mul", ["up", "slope"], ["y"], "scaled"))
    graph, x = model.SerializeToString(), RNG.standard_normal((2, 4, 5, 3)).astype(np.float32)
    changed = to_subpixel(graph, "int8")
    assert operators(changed) == ["Conv", "DepthToSpace", "Slice", "Mul"]
    np.testing.assert_allclose(run(changed, x), run(graph, x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 16])
def test_activations_follow_each_phase(channels: int) -> None:
    """With the other inputs that they have, here a limit on one side alone."""
    kernel = (60, 60) if channels == 3 else (4, 4)
    graph, _ = layer(kernel, stride=2, padding=(kernel[0] - 2) // 2, channels=channels)
    model = onnx.load_from_string(graph)
    model.graph.node[0].output[0] = "up"
    most = numpy_helper.from_array(np.array(0.5, np.float32), "most")
    model.graph.initializer.append(most)
    model.graph.node.append(helper.make_node("Clip", ["up", "", "most"], ["low"], "low"))
    model.graph.node.append(helper.make_node("LeakyRelu", ["low"], ["y"], "leaky", alpha=0.3))
    graph, x = model.SerializeToString(), RNG.standard_normal((2, 4, 5, 3)).astype(np.float32)
    changed = to_subpixel(graph, "fp32")
    phases = 1 if channels == 3 else 4
    assert operators(changed)[: 3 * phases] == ["Conv", "Clip", "LeakyRelu"] * phases
    expected = run(graph, x)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(run(changed, x), expected, rtol=0, atol=1e-5 * scale)


def narrow(channels: int, kernel: tuple[int, int], bias: bool = True, **said: Any) -> bytes:
    """A graph of one convolution x (N, 5, 8, 4) -> y."""
    group = said.get("group", 1)
    shapes = [(channels, 5 // group, *kernel), (channels,)][: 1 + bias]
    names = ["generator.to_image.weight", "generator.to_image.bias"][: 1 + bias]
    weights = [
        numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)
        for shape, name in zip(shapes, names, strict=True)
    ]
    node = helper.make_node(
        "Conv", ["x", *names], ["y"], "to_image", kernel_shape=kernel,
        **{"pads": [size // 2 for size in kernel] * 2, **said},
    )  # fmt: skip
    return file_of([node], weights, ["batch", 5, 8, 4])


NARROW: list[tuple[int, tuple[int, int], dict[str, Any], int]] = [
    (3, (3, 3), {}, 2),
    (4, (3, 3), {"bias": False}, 2),
    (1, (3, 3), {}, 4),
    (3, (7, 7), {}, 2),
    (3, (1, 5), {}, 2),
    (3, (3, 3), {"pads": [2, 0, 0, 2]}, 2),
    (3, (3, 3), {"pads": [0, 1, 0, 1]}, 2),  # not as large as its input
]


@pytest.mark.parametrize(("channels", "kernel", "said", "at_once"), NARROW)
def test_pixels_of_few_channels_are_computed_together(
    channels: int, kernel: tuple[int, int], said: dict[str, Any], at_once: int
) -> None:
    graph, x = narrow(channels, kernel, **said), RNG.standard_normal((2, 5, 8, 4))
    changed = to_subpixel(graph, "fp32")
    assert changed == to_subpixel(graph, "int8")
    conv, shuffle = onnx.load_from_string(changed).graph.node
    assert (conv.name, shuffle.op_type) == ("to_image", "DepthToSpace")
    assert {a.name: helper.get_attribute_value(a) for a in conv.attribute}["strides"] == [
        at_once, at_once,
    ]  # fmt: skip
    for given in (run, run_openvino):
        expected, found = (given(one, x.astype(np.float32)) for one in (graph, changed))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "graph",
    [
        narrow(5, (3, 3)),  # fill a vector soon enough
        narrow(3, (1, 1)),
        narrow(5, (3, 3), group=5),
        narrow(3, (3, 3), strides=[2, 2]),
        narrow(3, (3, 3), dilations=[2, 2]),
        narrow(3, (3, 3), pads=[0, 0, 1, 0]),  # 7 by 2 pixels
    ],
)
def test_other_convolutions_stay(graph: bytes) -> None:
    assert to_subpixel(graph, "int8") == graph


def test_a_narrow_one_of_unknown_size_stays() -> None:
    model = onnx.load_from_string(narrow(3, (3, 3)))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    assert to_subpixel(model.SerializeToString(), "int8") == model.SerializeToString()
