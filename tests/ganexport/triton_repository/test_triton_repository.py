"""The folder itself: what is in it, and what is refused."""

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import rewrite_manifest, run_python
from test_large import SPEC, network

import ganinfer
from ganexport.graph import large
from ganexport.options import ExportOptions
from ganexport.pipeline import Exported, export, export_run
from ganexport.triton.options import TritonOptions
from ganexport.triton.repository import write_repository
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.images import encode_pngs
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import BackendUnavailable, BundleError, ExportError
from ganinfer.files import sha256_bytes

OURS = Path(ganinfer.__file__).parent


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_it_holds_copies_and_nothing_is_to_be_installed(bundle: Path, tmp_path: Path) -> None:
    names = write_repository(bundle, tmp_path / "r", TritonOptions(png=True))
    assert names == ["tiny", "tiny_latents", "tiny_generator", "tiny_png", "tiny_packing"]
    found = files_of(tmp_path / "r")
    with Bundle(bundle) as opened:
        assert found["tiny_generator/1/model.onnx"] == opened.read_graph("fp32")
        assert opened.sha256 in found["README.md"].decode()
        assert json.loads(found["ganpipe.json"])["bundle_sha256"] == opened.sha256
    copies = {name: data for name, data in found.items() if "/1/ganinfer/" in name and data}
    assert len(copies) == 10
    for name, data in copies.items():
        assert data == (OURS / name.partition("/ganinfer/")[2]).read_bytes()
    for name, data in found.items():
        if name.endswith(".py"):
            ast.parse(data, feature_version=(3, 10))  # of Triton's older containers
    folders = list((tmp_path / "r").glob("*/1"))
    assert len(folders) == 5
    assert all(any(folder.iterdir()) for folder in folders)  # zip and git would drop it


# Of NAME_latents and of NAME_packing.
ALONE = {
    "latents": (
        "from ganinfer.drawing import inputs, latents",
        "latents.draw_latents(range(100), 16, truncation=0.7).tobytes()",
        draw_latents(range(100), 16, truncation=0.7).tobytes(),
    ),
    "packing": (
        "import numpy; from ganinfer.drawing import images",
        "images.encode_pngs(numpy.zeros((1, 9, 8, 3), numpy.uint8))[0]",
        encode_pngs(np.zeros((1, 9, 8, 3), np.uint8))[0],
    ),
}


@pytest.mark.parametrize("model", ALONE)
def test_the_copies_work_alone(model: str, bundle: Path, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path / "r", TritonOptions(png=True))
    imports, expression, expected = ALONE[model]
    code = f"""
import sys
sys.path.insert(0, sys.argv[1])
{imports}
import hashlib, ganinfer
print(hashlib.sha256({expression}).hexdigest())
print(ganinfer.__file__)
print(sorted({{"pydantic", "PIL", "platformdirs"}} & set(sys.modules)))
"""
    folder = tmp_path / f"r/tiny_{model}/1"
    digest, place, others = run_python(code, folder)
    assert digest == sha256_bytes(expected)
    assert Path(place).is_relative_to(folder)
    assert others == "[]"


def test_an_older_one_is_replaced_and_a_failure_leaves_it(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    write_repository(bundle, folder, TritonOptions(png=True))
    write_repository(bundle, folder, TritonOptions())
    before = files_of(folder)
    assert not any(name.startswith("tiny_png") for name in before)
    with pytest.raises(BackendUnavailable, match="no fp8 variant; it holds fp32"):
        write_repository(bundle, folder, TritonOptions(precision="fp8"))
    assert files_of(folder) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["r"]


def test_something_else_is_left_alone(bundle: Path, tmp_path: Path, gan) -> None:
    for name, data in (("file", None), ("mine", "mine.txt"), ("more", "tiny/1/x")):
        place = tmp_path / name
        if data is None:
            place.write_bytes(b"mine")
        else:
            (place / data).parent.mkdir(parents=True)
            (place / data).write_bytes(b"mine")
        before = files_of(tmp_path)
        done = gan("triton", bundle, "-o", place)
        assert done.returncode == 1
        assert "exists and is not a repository that gan triton wrote" in done.stderr
        assert files_of(tmp_path) == before
    write_repository(bundle, tmp_path / "r", TritonOptions())
    (tmp_path / "r/another").mkdir()
    with pytest.raises(ExportError, match="wrote: another is not of it; choose another folder"):
        write_repository(bundle, tmp_path / "r", TritonOptions())


def test_an_unverified_bundle_is_refused(copied: Path, tmp_path: Path) -> None:
    rewrite_manifest(copied, lambda manifest: manifest.update(verified=False))
    with pytest.raises(BundleError, match="--no-verify.*pass --allow-unverified"):
        write_repository(copied, tmp_path / "r", TritonOptions())
    write_repository(copied, tmp_path / "r", TritonOptions(allow_unverified=True))


def test_weights_beside_a_graph_stay_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "LARGEST", 4 << 10)
    options = ExportOptions(precisions=["fp32"], num_images=1000)
    made = export(network(), SPEC, tmp_path / "x.gan", options)
    write_repository(made.path, tmp_path / "r", TritonOptions())
    folder = tmp_path / "r/x_generator/1/model.onnx"
    graph, (weights,) = folder / "model.onnx", list(folder.glob("*.weights"))
    assert weights.name == f"{sha256_bytes(weights.read_bytes())}.weights"
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["z"]
    with pytest.raises(ExportError, match="weights of fp32 lie beside its graph"):
        write_repository(made.path, tmp_path / "q", TritonOptions(backend="onnxruntime_tensorrt"))


@pytest.fixture(scope="module")
def with_engine(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'ganpipe[rtx]'")
    options = ExportOptions(
        precisions=["fp32"],
        tensorrt=True,
        product="tensorrt_rtx",
        targets=["portable"],
        profiles=[(1, 4, 8), (1, 16, 32)],
        num_images=1000,
    )
    return export_run(run, tmp_path_factory.mktemp("engine") / "x.gan", options).path


def test_engines_of_tensorrt_rtx_are_refused_in_words(with_engine: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"it holds tensorrt_rtx .* Triton runs none of"):
        write_repository(with_engine, tmp_path / "r", TritonOptions(backend="tensorrt"))


def test_an_engine_of_tensorrt_is_served_with_its_version(
    with_engine: Path, tmp_path: Path
) -> None:
    """Of TensorRT proper none can be built here: the other product's is declared to be one."""
    bundle = Path(shutil.copytree(with_engine, tmp_path / "x.gan"))
    rewrite_manifest(bundle, lambda m: m["engines"][0].update(product="tensorrt", target="sm90"))
    options = TritonOptions(backend="tensorrt", batch_size=32)
    write_repository(bundle, tmp_path / "r", options)
    found = files_of(tmp_path / "r")
    with Bundle(bundle) as opened:
        (entry,) = opened.manifest.engines
        assert found["x_generator/1/model.plan"] == opened.read(entry.path)
    assert f"built by TensorRT {entry.version} for sm90" in found["README.md"].decode()
    config = found["x_generator/config.pbtxt"].decode()
    assert 'backend: "tensorrt"' in config
    assert 'profile: "0"\n  profile: "1"' in config
    with pytest.raises(ExportError, match="batches of 1 to 32; Triton needs those of 1 to batch"):
        write_repository(bundle, tmp_path / "r", TritonOptions(backend="tensorrt", batch_size=64))
    with pytest.raises(ExportError, match="no fp32 engine of tensorrt for sm89; it holds"):
        write_repository(bundle, tmp_path / "r", TritonOptions(backend="tensorrt", target="sm89"))


def test_a_stylegans_engines_are_refused(styled: Exported, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="take styles w beside z"):
        write_repository(styled.path, tmp_path / "r", TritonOptions(backend="tensorrt"))
