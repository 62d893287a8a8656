"""Real engines, built without a GPU; opening one needs a GPU and says so."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from ganexport.engines.tensorrt import build_engine, engine_key, pick_product
from ganexport.graph.class_weights import take_weights
from ganexport.graph.precision import convert
from ganexport.graph.tracing import bake, to_onnx
from ganexport.options import ExportOptions, check_profiles
from ganexport.pipeline import export_run
from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.engine_report import read_report
from ganinfer.errors import BackendUnavailable, ConfigError, ExportError, MissingExtra
from gantrain.runs.checkpoint import load_generator

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="pip install 'ganpipe[rtx]'"
)

NO_GPU = not any(Path("/dev").glob("nvidia[0-9]*"))


@pytest.fixture(scope="module")
def graph(run: Path) -> bytes:
    return to_onnx(bake(load_generator(run)), z_dim=16, num_classes=3)


@pytest.mark.parametrize("target", ["portable", "sm89"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_is_built_without_a_gpu(graph: bytes, target: str, precision: str) -> None:
    built = build_engine(
        convert(graph, precision),
        product="tensorrt_rtx",
        target=target,
        precision=precision,
        profiles=[(1, 1, 8), (8, 16, 32)],
    )
    assert len(built.plan) > 10_000
    assert built.entry.status == "pending"
    assert (built.entry.target, built.entry.profiles) == (target, [[1, 1, 8], [8, 16, 32]])


def test_a_float8_engine_is_built_and_refused_by_name_where_there_is_no_float8() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[n, 16] z) => (float[n, 16] y)
        <float scale = {0.02}>
        { q = QuantizeLinear<output_dtype = 17>(z, scale)
          a = DequantizeLinear(q, scale)
          y = Relu(a) }"""
    ).SerializeToString()
    for target in ("portable", "sm89"):
        assert (
            build_engine(model, product="tensorrt_rtx", target=target, precision="fp8").entry.target
            == target
        )
    with pytest.raises(ExportError, match="target sm86: fp8 needs sm89 or newer"):
        build_engine(model, product="tensorrt_rtx", target="sm86", precision="fp8")
    with pytest.raises(ExportError, match="target sm80: fp8 needs sm89 or newer"):
        pick_product("tensorrt_rtx", ["sm89", "sm80"], ["fp32", "fp8"])


def test_an_engine_takes_weights_of_classes(graph: bytes) -> None:
    weights = convert(take_weights(graph, 3), "fp16")
    built = build_engine(weights, product="tensorrt_rtx", target="portable", precision="fp16")
    assert built.entry.status == "pending"


def test_the_key_names_all_that_decides_an_engine() -> None:
    base = ("a" * 64, "tensorrt_rtx", "1.2.3.4", "portable", "fp16", [(1, 2, 3)])
    keys = {engine_key(*base)}
    for index, other in enumerate(("b" * 64, "tensorrt", "1.2.3.5", "sm89", "fp32", [(1, 2, 4)])):
        keys.add(engine_key(*(other if n == index else part for n, part in enumerate(base))))
    assert len(keys) == 7
    assert engine_key(*base) in keys


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        ([(4, 2, 8)], "--profile 4:2:8: expected smallest:likeliest:largest"),
        ([(0, 2, 8)], "--profile 0:2:8: expected .* none below 1"),
        ([(1, 2, 8), (1, 2, 8)], "--profile 1:2:8: given twice"),
        ([], "expected at least one"),
    ],
)
def test_profiles_that_no_engine_can_have_are_named(profiles, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_profiles(profiles)


def test_a_target_that_the_library_lacks_lists_those_it_has(graph: bytes) -> None:
    with pytest.raises(ExportError, match=r"sm90: tensorrt_rtx .* builds for portable, .*sm89"):
        build_engine(graph, product="tensorrt_rtx", target="sm90", precision="fp32")


def test_a_graph_that_the_parser_refuses_is_explained() -> None:
    with pytest.raises(ExportError, match="cannot take the graph"):
        build_engine(b"nonsense", product="tensorrt_rtx", target="portable", precision="fp32")


@pytest.fixture(scope="module")
def with_engines(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(
        run,
        tmp_path_factory.mktemp("engines") / "x.gan",
        ExportOptions(
            tensorrt=True, product="tensorrt_rtx", targets=["portable", "sm89"], num_images=1000
        ),
    ).path


def test_a_bundle_carries_its_engines(with_engines: Path) -> None:
    with Bundle(with_engines) as opened:
        entries = opened.manifest.engines
        assert {(e.target, e.precision) for e in entries} == {
            (target, precision) for target in ("portable", "sm89") for precision in ("fp32", "fp16")
        }
        assert all(e.path == f"engines/{e.key}.plan" for e in entries)
        for entry in entries:
            assert read_report(opened, entry).plan_bytes == opened.manifest.files[entry.path].size


def test_inspect_shows_what_is_in_an_engine(with_engines: Path, gan) -> None:
    output = gan("inspect", with_engines, "--engines").stdout
    words = " ".join(output.split())
    assert "engine fp16 for sm89, read from the network" in words
    assert re.search(r"weights [\d,]+ bytes, activations and workspace [\d,]+ bytes", words)
    assert "DECONVOLUTION" in output
    assert "DECONVOLUTION" not in gan("inspect", with_engines).stdout


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_opening_an_engine_without_a_gpu_gives_the_reason(with_engines: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"needs an NVIDIA GPU and driver.*cudaError"):
        Sampler(with_engines, backend="tensorrt")


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_auto_says_why_it_does_without_tensorrt(with_engines: Path) -> None:
    with Sampler(with_engines) as sampler:
        assert sampler.info["backend"] in ("onnxruntime", "openvino")
        assert "needs an NVIDIA GPU" in sampler.info["reason"]


def test_a_product_that_is_not_installed_names_its_pip_command() -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("tensorrt is installed")
    with pytest.raises(MissingExtra, match=r"ganpipe\[tensorrt\]"):
        pick_product("tensorrt")


@pytest.mark.gpu
@pytest.mark.skipif(NO_GPU, reason="needs an NVIDIA GPU")
def test_an_engine_gives_the_golden_images_on_a_gpu(with_engines: Path) -> None:
    try:
        sampler = Sampler(with_engines, backend="tensorrt")
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with sampler, Sampler(with_engines, backend="onnxruntime", precision="fp32") as other:
        assert sampler.info["cuda_graphs"] == "used"
        for n in (1, 10, 10, 300):  # in buckets of their own, and split
            steps = np.abs(sampler.sample(n).astype(int) - other.sample(n))
            assert steps.max() <= 2


def test_an_engine_that_was_built_before_is_found_by_its_key(
    graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ganexport.engines import tensorrt

    def build() -> bytes:
        return build_engine(
            graph, product="tensorrt_rtx", target="portable", precision="fp32", cache=tmp_path
        ).plan

    first = build()
    with monkeypatch.context() as patch:
        patch.setattr(tensorrt, "_compile", lambda *_: pytest.fail("built again"))
        assert build() == first
    (file,) = tmp_path.glob("*.plan")
    file.write_bytes(file.read_bytes()[:-1])  # damaged: built anew
    again = build()
    assert len(again) > 10_000
    assert file.read_bytes()[64:] == again
