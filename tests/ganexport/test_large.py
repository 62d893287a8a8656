"""A graph that is too large for one ONNX file, from the module to the picture.

Protobuf's 2 GB are made 4 KiB here; a network of 2.4 GB goes the same road, only longer.
"""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import rewrite_manifest
from torch import nn

from ganexport.extraction.check import seed_feed
from ganexport.extraction.extract import extract
from ganexport.extraction.options import ExtractOptions
from ganexport.graph import large
from ganexport.graph.drawing import draw_bundle, short
from ganexport.graph.precision import convert
from ganexport.options import ExportOptions
from ganexport.pipeline import Exported, export
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import of_module
from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle, sign_bundle
from ganinfer.bundle.large_onnx import LargeOnnx
from ganinfer.bundle.signature import make_keys, open_private_key
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.errors import BackendUnavailable, BundleError, ExportError
from ganinfer.files import sha256_bytes
from ganinfer.verify import verify_host

Z_DIM = 16
SPEC = Spec(z_dim=Z_DIM)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(Z_DIM, 32 * 16),
        nn.Unflatten(1, (32, 4, 4)),
        nn.ConvTranspose2d(32, 16, 4, 2, 1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1),
        nn.Tanh(),
    ).eval()


@pytest.fixture(scope="module", autouse=True)
def _small_files():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large, "LARGEST", 4 << 10)
        yield


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    options = ExportOptions(precisions=["fp32", "fp16", "bf16", "int8"], num_images=1000)
    return export(network(), SPEC, tmp_path_factory.mktemp("large") / "x.gan", options)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network in one ONNX file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large, "LARGEST", 1 << 30)
        folder = tmp_path_factory.mktemp("small")
        return export(network(), SPEC, folder / "x.gan", ExportOptions(num_images=1000)).path


def test_it_is_proven_here_and_on_any_host(exported: Exported) -> None:
    assert all(gate.passed for gate in exported.gates)
    assert {gate.artifact for gate in exported.gates} == {
        *("onnx fp32", "onnx fp16 (emulated)", "onnx bf16 (emulated)"),
    }
    assert all(gate.passed for gate in verify_host(exported.path))
    [left] = exported.left_out
    assert left.artifact == "int8"
    assert "weights beside it" in left.why


def test_its_weights_lie_beside_it_under_their_sha256(exported: Exported) -> None:
    with Bundle(exported.path) as bundle:
        assert bundle.manifest.format_version == 3
        for precision in ("fp32", "fp16", "bf16"):
            graph = bundle.read_graph(precision)
            assert isinstance(graph, LargeOnnx)
            assert len(graph) < 5 << 10 < len(graph.weights)
            assert graph.location == f"{sha256_bytes(graph.weights)}.weights"
            assert graph.weights == (exported.path / "onnx" / graph.location).read_bytes()
    # As ONNX has it, so that other programs read it in its folder.
    onnx.checker.check_model(str(exported.path / "onnx" / "fp32.onnx"))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_images_are_those_of_one_file(exported: Exported, small: Path, backend: str) -> None:
    pytest.importorskip(backend)
    with (
        Sampler(exported.path, backend=backend, precision="fp32") as beside,
        Sampler(small, backend=backend, precision="fp32") as inside,
    ):
        images = beside.sample(40)
        assert np.array_equal(images, inside.sample(40))
        assert np.abs(beside.sample(1, seed=7)[0].astype(int) - images[7]).max() <= 1


def test_a_single_signed_file_holds_it_too(exported: Exported, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    key = tmp_path / "key.pem"
    public = make_keys(key)
    options = ExportOptions(num_images=1000, precisions=["fp32"], single_file=True)
    path = export(network(), SPEC, tmp_path / "x.gan", options).path
    sign_bundle(path, open_private_key(key))
    with (
        Sampler(path, public_key=public, precision="fp32") as one,
        Sampler(exported.path, precision="fp32") as other,
    ):
        assert np.array_equal(one.sample(8), other.sample(8))


def test_half_precision_may_fit_into_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = of_module(network(), SPEC)
    monkeypatch.setattr(large, "LARGEST", 60_000)  # 69 KB of float32
    graph = subject.to_onnx(subject.twin())
    half = convert(graph, "fp16")
    monkeypatch.setattr(large, "LARGEST", 1 << 30)
    whole = subject.to_onnx(subject.twin())
    assert isinstance(graph, LargeOnnx)
    assert half == convert(whole, "fp16")
    assert not isinstance(half, LargeOnnx)


def test_an_extracted_graph_runs_beside_its_weights(exported: Exported, tmp_path: Path) -> None:
    extract(exported.path, tmp_path / "g.onnx", ExtractOptions(pixels="float"))
    assert len(list(tmp_path.iterdir())) == 2
    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"))
    with Bundle(exported.path) as bundle:
        inputs = draw_inputs(bundle.manifest.model, range(3), None)
    with torch.no_grad():
        expected = network()(torch.from_numpy(inputs.z)).numpy()
    assert np.abs(session.run(None, inputs.feed())[0] - expected).max() < 1e-4


def test_seeds_go_in_before_weights_that_lie_beside(exported: Exported, tmp_path: Path) -> None:
    extract(exported.path, tmp_path / "g.onnx", ExtractOptions(latents="seed"))
    assert len(list(tmp_path.iterdir())) == 2
    session = onnxruntime.InferenceSession(str(tmp_path / "g.onnx"))
    with Bundle(exported.path) as bundle:
        (images,) = session.run(None, seed_feed(bundle.manifest.model, [1, 2**63]))
    with Sampler(exported.path, backend="onnxruntime", precision="fp32") as sampler:
        assert np.array_equal(images, sampler.sample(seeds=[1, 2**63]))


def test_its_drawing_counts_the_weights(exported: Exported, tmp_path: Path) -> None:
    draw_bundle(exported.path, tmp_path / "g.html")
    with Bundle(exported.path) as bundle:
        size = large.file_bytes(bundle.read_graph("fp32"))
    assert f"<b>{short(size)}B</b>" in (tmp_path / "g.html").read_text()


def test_an_engine_is_built_of_it() -> None:
    pytest.importorskip("tensorrt_rtx")
    from ganexport.engines.tensorrt import build_engine

    subject = of_module(network(), SPEC)
    graph = subject.to_onnx(subject.twin())
    built = build_engine(graph, product="tensorrt_rtx", target="portable", precision="fp32")
    assert built.report.weights_bytes > len(graph)
    assert len(built.plan) > built.report.weights_bytes


def test_who_cannot_take_it_says_so(exported: Exported) -> None:
    from ganexport.proof.layers import compare_graphs

    with Bundle(exported.path) as bundle:
        graph = bundle.read_graph("fp32")
    with pytest.raises(ExportError, match="beside it, more than one file; .*leave --layers out"):
        compare_graphs(graph, graph, "fp32", {})
    with pytest.raises(BackendUnavailable, match="cannot be put there .*TMPDIR"):
        odd = LargeOnnx(graph, graph.weights, "no/such/folder.weights")
        with odd.on_disk():
            pass


def name_another_file(model: onnx.ModelProto) -> None:
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = "../golden/images.npy"


def reach_beyond(model: onnx.ModelProto) -> None:
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "offset":
                entry.value = str(1 << 40)


@pytest.mark.parametrize("spoil", [name_another_file, reach_beyond])
def test_a_graph_that_names_other_bytes_is_refused(
    exported: Exported, tmp_path: Path, spoil
) -> None:
    copied = Path(shutil.copytree(exported.path, tmp_path / "copy.gan"))
    file = copied / "onnx" / "fp32.onnx"
    model = onnx.load(file, load_external_data=False)
    spoil(model)
    data = model.SerializeToString()
    file.write_bytes(data)
    entry = {"sha256": sha256_bytes(data), "size": len(data)}
    rewrite_manifest(copied, lambda manifest: manifest["files"].update({"onnx/fp32.onnx": entry}))
    with Bundle(copied) as bundle, pytest.raises(BundleError, match="keeps weights outside"):
        bundle.read_graph("fp32")


def test_changed_or_missing_weights_are_refused(exported: Exported, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(exported.path, tmp_path / "copy.gan"))
    with Bundle(copied) as bundle:
        file = copied / "onnx" / bundle.read_graph("fp32").location
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"\.weights: found sha256"):
        Bundle(copied)
    file.unlink()
    with pytest.raises(BundleError, match=r"\.weights is missing"):
        Bundle(copied)
