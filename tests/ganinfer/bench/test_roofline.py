"""Layers as real runs of the backends tell them."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from test_bench_layers import graph_of

from ganexport.graph.macs import macs_per_image
from ganexport.graph.precision import convert
from ganinfer.backends._profile import Kernel, Profile
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bench.layers import INPUTS, Layers
from ganinfer.bench.layers_report import LayersReport, bench_layers
from ganinfer.bench.measure import Asked
from ganinfer.bench.rates import Rates
from ganinfer.bench.roofline import Anatomy, anatomy
from ganinfer.bench.roofline_chart import roofline_chart
from ganinfer.bundle.archive import Bundle
from ganinfer.cli.console import console
from ganinfer.cli.layers import show_layers
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.latents import draw_latents

N, Z_DIM = 4, 60
MACHINE = Rates(gmacs_per_s=100.0, gb_per_s=10.0)
CONVOLUTIONS = {"blocks.0.conv2", "blocks.2.conv2"}  # between the first layer and the last


def inputs() -> Inputs:
    return Inputs(draw_latents(range(N), Z_DIM), np.arange(N) % 3)


@pytest.fixture(scope="module")
def graph() -> bytes:
    return graph_of("biggan")


@functools.cache
def profiled(graph: bytes, backend: str, precision: str) -> Profile:
    """A real run, of the graph as a bundle holds it for that backend."""
    if backend == "openvino":
        openvino = pytest.importorskip("ganinfer.backends.openvino")
        pytest.importorskip("openvino")
        if precision == "bf16" and "BF16" not in openvino.capabilities_here():
            pytest.skip("this processor has no bfloat16")
    feed = inputs().feed()
    file = convert(graph, precision, calibration=feed)
    if backend == "openvino":
        opened = openvino.OpenVINOBackend(file, precision, openvino.new_core())
    else:
        opened = OnnxRuntimeBackend(file, "cpu", precision)
    profile: Profile = opened.profile(inputs(), seconds=0.0)
    return profile


def told(graph: bytes, profile: Profile, precision: str, rates: Rates | None = MACHINE) -> Anatomy:
    asked = Asked("x.gan", "ours", precision, "cpu", 0.0, N)
    return anatomy(asked, "cpu", Layers(graph), profile, rates, run_seconds=1.0)


REAL = [
    ("onnxruntime", "fp32", {"fp32"}),
    ("onnxruntime", "fp16", {"fp16", "fp32"}),  # it has kernels on some kinds of processors
    ("onnxruntime", "int8", {"int8"}),
    ("openvino", "fp32", {"fp32"}),
    ("openvino", "bf16", {"bf16"}),
    ("openvino", "int8", {"int8"}),
]


@pytest.mark.parametrize(("backend", "precision", "types"), REAL)
def test_every_layer_is_there_with_the_type_that_ran_and_sums_agree(
    graph: bytes, backend: str, precision: str, types: set[str]
) -> None:
    profile = profiled(graph, backend, precision)
    found = told(graph, profile, precision)
    assert [layer.name for layer in found.layers] == [layer.name for layer in Layers(graph).layers]
    assert sum(layer.macs for layer in found.layers) == N * macs_per_image(graph)
    for layer in found.layers:
        if layer.macs:
            assert layer.seconds > 0 or layer.fused_into, layer
            assert layer.num_bytes > 0 or layer.fused_into, layer
    by_name = {layer.name: layer for layer in found.layers}
    assert {by_name[name].type for name in CONVOLUTIONS} <= types
    assert by_name["to_image"].type in ("fp32", precision)  # which int8 leaves as it is
    quiet = profile.run_seconds.argsort()[: (len(profile.run_seconds) + 1) // 2]
    assert found.layer_seconds == pytest.approx(profile.seconds[quiet].mean(axis=0).sum())
    rounding = 1e-6 * len(profile.kernels)
    assert (profile.seconds.sum(axis=1) <= profile.run_seconds + rounding).all()


def test_what_onnxruntime_gives_no_name_belongs_to_a_layer_all_the_same(bundle: Path) -> None:
    """As what it puts in the place of a Relu in fp16."""
    with Bundle(bundle) as opened:
        fp32, fp16 = opened.read_graph("fp32"), opened.read_graph("fp16")
    drawn = Inputs(draw_latents(range(N), 16), np.arange(N) % 3)
    profile = OnnxRuntimeBackend(fp16, "cpu", "fp16").profile(drawn, seconds=0.0)
    owners = Layers(fp32).of_kernels(profile.kernels)
    computing = {
        names[0]: kernel.kind
        for kernel, names in zip(profile.kernels, owners, strict=True)
        if not kernel.moves
    }
    assert INPUTS not in computing
    assert {"project", "ups.0", "to_image"} <= set(computing)


def kernel(node: str, kind: str, computes_in: str = "fp32", *, moves: bool = False) -> Kernel:
    return Kernel(f"{kind} of {node}", (node,), (), kind, computes_in, moves, num_bytes=1000)


def of(graph: bytes, precision: str, seconds: dict[Kernel, float]) -> Anatomy:
    times = np.array([[*seconds.values()]])
    return told(graph, Profile(tuple(seconds), times, times.sum(axis=1)), precision)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ({kernel("blocks.2.conv2", "Conv"): 1.0}, "ran in fp32 though int8 was asked for"),
        ({kernel("to_image", "Conv", "int8"): 1.0}, "output channels (3) do not fill a vector"),
        ({kernel("blocks.0.skip", "Conv", "int8"): 1e-5}, "little work a kernel"),
        ({kernel("blocks.2.conv2", "Conv", "int8"): 1.0}, "Conv int8 reaches 0% of its roof"),
        (
            {
                kernel("blocks.2.conv2", "Conv", "int8"): 0.4,
                kernel("blocks.2.conv2", "Reorder", moves=True): 0.6,
            },
            "copies and changes of layout or type take 60% of it",
        ),
    ],
)
def test_it_is_said_what_keeps_a_layer_from_its_roof(
    graph: bytes, seconds: dict[Kernel, float], words: str
) -> None:
    (worst,) = of(graph, "int8", seconds).costliest
    assert worst.why.startswith(words)


def test_the_three_that_lose_most_are_named_worst_first(graph: bytes) -> None:
    names = ["blocks.0.conv2", "blocks.2.conv2", "to_image", "project", "blocks.0.skip"]
    seconds = {kernel(name, "Conv"): 1.0 + n for n, name in enumerate(names)}
    found = of(graph, "fp32", seconds)
    assert [layer.name for layer in found.costliest] == [*reversed(names)][:3]


def test_a_copy_has_no_roof_to_hide_under(graph: bytes) -> None:
    moved = kernel("blocks.2.conv2", "Reorder", moves=True)
    (worst,) = of(graph, "fp32", {moved: 1.0}).costliest
    assert worst.type == ""
    assert worst.roof_seconds == worst.macs / 100e9


def test_what_another_kernel_does_is_not_lost(graph: bytes) -> None:
    fused = Kernel("k", ("blocks.2.conv2", "norm"), (), "Conv", "fp32", False, 1)
    norm = next(layer for layer in of(graph, "fp32", {fused: 1.0}).layers if layer.name == "norm")
    assert (norm.seconds, norm.fused_into) == (0.0, "blocks.2.conv2")


@pytest.fixture(scope="module")
def report(bundle: Path) -> LayersReport:
    """Of a real process; another backend does not open."""
    backends = ["onnxruntime", "onnxruntime_tensorrt"]
    return bench_layers(bundle, backends=backends, precisions=["fp32"], batch_size=N, seconds=0.01)


def test_a_bundle_is_measured_layer_by_layer(bundle: Path, report: LayersReport) -> None:
    (found,) = report.measured
    assert (found.name, found.batch_size) == ("onnxruntime fp32", N)
    assert [layer.name for layer in found.layers if layer.macs] == ["project", "ups.0", "to_image"]
    assert found.machine is not None
    assert found.share_of_machine == pytest.approx(
        sum(layer.macs for layer in found.layers)
        / (found.run_seconds * 1e9 * found.machine.gmacs_per_s)
    )
    (refused,) = report.refused
    assert "has no TensorRT" in refused.reason
    assert json.loads(report.to_json())["measured"][0]["layers"][0]["name"] == "inputs"


def test_tables_fit_a_hundred_columns(graph: bytes, report: LayersReport, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 100)
    fused = Kernel(
        "k", ("blocks.2.conv2", "norm"), (), "Convolution a_jit_avx512", "int8", False, 1
    )
    wide = of(graph, "int8", {fused: 12.345678})
    show_layers(LayersReport(report.bundle, "", report.host, [wide], report.refused))
    lines = capsys.readouterr().out.splitlines()
    table = lines[: next(n for n, line in enumerate(lines) if line.startswith("The layers take"))]
    assert max(len(line.rstrip()) for line in table) <= 100
    assert sum(line.startswith("blocks.2.conv2 ") for line in table) == 1
    assert "in that of" in next(line for line in table if line.startswith("norm "))
    assert "  blocks.2.conv2: " in "\n".join(lines)
    assert lines[-1].startswith("not measured: onnxruntime_tensorrt fp32")


def test_the_picture_has_a_dot_and_a_bar_for_each_layer(graph: bytes, report: LayersReport) -> None:
    real = told(graph, profiled(graph, "onnxruntime", "fp32"), "fp32")
    named = LayersReport("a/<b>&.gan", "", report.host, [real, *report.measured], [])
    root = ElementTree.fromstring(roofline_chart(named))
    dots = [
        e for e in root.iter() if e.tag.endswith("circle") and e.attrib["class"].startswith("dot")
    ]
    expected = 0
    for found in named.measured:
        least = sum(layer.macs for layer in found.layers) / 1000
        expected += sum(
            layer.gmacs_per_s is not None and layer.macs >= least for layer in found.layers
        )
    assert len(dots) == expected
    width, height = (float(n) for n in root.attrib["viewBox"].split()[2:])
    assert all(0 <= float(dot.attrib["cx"]) <= width for dot in dots)
    assert all(0 <= float(dot.attrib["cy"]) <= height for dot in dots)
    assert any(element.text == "<b>&.gan: layers and their roofs" for element in root.iter())


def test_without_rates_there_are_bars_alone(graph: bytes, report: LayersReport) -> None:
    on_gpu = told(graph, profiled(graph, "onnxruntime", "fp32"), "fp32", None)
    assert on_gpu.share_of_machine is None
    picture = roofline_chart(LayersReport("x.gan", "", report.host, [on_gpu], []))
    assert "polyline" not in picture
    assert picture.count("<rect") > 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-size", "8"], "--batch-size: it goes with --layers"),
        (["--layers", "--tune"], "--tune: it goes without --layers"),
        (["--layers", "--server", "http://localhost:1"], "--server: it goes without"),
    ],
)
def test_what_does_not_go_together_is_refused(
    gan: Callable, bundle: Path, arguments: list[str], message: str
) -> None:
    done = gan("bench", bundle, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
