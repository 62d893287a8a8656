import importlib.util
import json
from pathlib import Path

import onnx
import pytest

from ganexport.engines.report import of_engine
from ganexport.engines.tensorrt import BuiltEngine, build_engine
from ganexport.graph.precision import convert
from ganexport.graph.subpixel import to_subpixel
from ganexport.graph.tracing import bake, to_onnx
from gantrain.runs.checkpoint import load_generator

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="pip install 'ganpipe[rtx]'"
)


@pytest.fixture(scope="module")
def graph(run: Path) -> bytes:
    return convert(to_onnx(bake(load_generator(run)), z_dim=16, num_classes=3), "fp16")


@pytest.fixture(scope="module")
def built(graph: bytes, tmp_path_factory: pytest.TempPathFactory) -> BuiltEngine:
    return build_engine(
        graph,
        product="tensorrt_rtx",
        target="portable",
        precision="fp16",
        cache=tmp_path_factory.mktemp("cache"),
    )


def test_without_a_gpu_the_report_is_read_from_the_network(built: BuiltEngine) -> None:
    report = built.report
    assert report.read_from == "network"
    assert report.plan_bytes == len(built.plan)
    # At least the largest layer's images of the largest batch, of 256 in half precision.
    assert report.device_memory_bytes is not None
    assert report.device_memory_bytes >= 256 * 16 * 16 * 2
    layers = {layer.name: layer for layer in report.layers}
    up = layers["ups.0"]
    assert (up.type, up.inputs, up.outputs, up.layers) == (
        "DECONVOLUTION",
        ["HALF"],
        ["HALF"],
        ["ups.0"],
    )
    assert layers["node_tanh"].inputs == ["FLOAT"]
    assert layers["node_tanh"].layers == ["to_image"]


def test_weights_are_counted_in_the_engines_precision(graph: bytes, built: BuiltEngine) -> None:
    numbers = sum(len(weight.raw_data) for weight in onnx.load_from_string(graph).graph.initializer)
    assert built.report.weights_bytes == pytest.approx(numbers, rel=0.01)


def test_subpixel_convolutions_are_built_in_bfloat16(run: Path, tmp_path: Path) -> None:
    single = to_onnx(bake(load_generator(run)), z_dim=16, num_classes=3)
    built = build_engine(
        convert(to_subpixel(single, "bf16"), "bf16"),
        product="tensorrt_rtx",
        target="portable",
        precision="bf16",
        profiles=[(1, 2, 4)],
        cache=tmp_path,
    )
    layers = {layer.name: layer for layer in built.report.layers}
    assert "DECONVOLUTION" not in {layer.type for layer in layers.values()}
    up = layers["ups.0"]
    assert (up.type, up.outputs, up.layers) == ("CONVOLUTION", ["BF16"], ["ups.0"])
    assert layers["ups.0.shuffle"].layers == ["ups.0"]


@pytest.mark.parametrize("field", ["Format/Datatype", "DataType"])
def test_on_a_gpu_it_is_read_from_the_engine_and_names_what_is_fused(
    graph: bytes, built: BuiltEngine, field: str
) -> None:
    """As the EngineInspector of TensorRT 10, or of 11, tells it."""
    fused = {
        "Name": "__myl_ups0_relu",
        "LayerType": "kgen",
        "Inputs": [{"Name": "a", field: "Half"}],
        "Outputs": [{"Name": "b", field: "Float"}],
        "Metadata": "[ONNX Layer: ups.0]\x1e[ONNX Layer: node_relu_1]\x1e[ONNX Layer: to_image]",
    }
    report = of_engine(json.dumps({"Layers": [fused]}), 4096, graph, built.report)
    assert (report.read_from, report.device_memory_bytes) == ("engine", 4096)
    (layer,) = report.layers
    assert (layer.inputs, layer.outputs) == (["Half"], ["Float"])
    assert layer.layers[0] == "ups.0"
    assert layer.layers[-1] == "to_image"


def test_seconds_are_told_only_of_an_engine_that_was_built(graph: bytes, tmp_path: Path) -> None:
    def build() -> BuiltEngine:
        return build_engine(
            graph, product="tensorrt_rtx", target="portable", precision="fp16", cache=tmp_path
        )

    first, again = build(), build()
    assert first.seconds is not None
    assert again.seconds is None
    assert again.report == first.report
