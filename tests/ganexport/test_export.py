import io
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_recipe
from faults import FAULTS

from ganexport.graph import tracing as graph_module
from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganexport.proof.reference import probes
from ganexport.proof.verify import verify_against_run
from ganexport.subjects.subject import of_run
from ganinfer import Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.archive import Bundle, write_bundle
from ganinfer.bundle.signature import make_keys
from ganinfer.errors import (
    BackendUnavailable,
    CheckpointError,
    ConfigError,
    DataError,
    Ending,
    ExportError,
    ParityError,
)
from ganinfer.verify import verify_host
from gantrain.game.config import parse_config
from gantrain.runs.checkpoint import checkpoint_files, load_generator
from gantrain.training.train import train


@pytest.fixture(params=FAULTS)
def fault(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name, replacement = FAULTS[request.param]
    monkeypatch.setattr(graph_module, name, replacement)
    return request.param


def test_a_planted_fault_fails_the_export_and_names_the_gate(fault, run, tmp_path) -> None:
    with pytest.raises(ParityError, match=r"gate '[\w ,]+' of onnx fp32: "):
        export_run(run, tmp_path / "x.gan", ExportOptions(num_images=1000))
    assert os.listdir(tmp_path) == []


def test_a_planted_fault_fails_verification_on_any_host(fault, run, tmp_path) -> None:
    """A bundle that skipped the gates is found out by its golden images, without the run."""
    path = export_run(run, tmp_path / "x.gan", ExportOptions(verify=False)).path
    gates = verify_host(path)
    failed = [gate for gate in gates if not gate.passed]
    assert failed, fault
    assert failed[0].gate == "golden images"
    assert "golden gate" in failed[0].detail
    with pytest.raises(ParityError, match="golden gate"):
        Sampler(path, allow_unverified=True)


def test_a_clean_bundle_is_good_on_any_host_and_torch_is_not_needed(bundle: Path) -> None:
    gates = verify_host(bundle)
    assert [gate.gate for gate in gates] == [
        "golden images",
        "paired FID / floor",
        "paired, worst class",
    ] * (3 if find_spec("openvino") else 2)
    assert all(gate.passed for gate in gates)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ganinfer.verify import verify_host\n"
        f"assert all(gate.passed for gate in verify_host(Path({str(bundle)!r})))\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_witness_alone_gives_a_wrong_network_away(run, bundle, tmp_path, monkeypatch) -> None:
    """The golden images and the graph of one wrong network agree with each other."""
    monkeypatch.setattr(graph_module, *FAULTS["EMA weights not used"])
    wrong = export_run(run, tmp_path / "x.gan", ExportOptions(verify=False)).path
    with Bundle(wrong) as theirs, Bundle(bundle) as ours:
        files = {name: ours.read(name) for name in ours.manifest.files}
        for name in ("onnx/fp32.onnx", "onnx/fp16.onnx"):
            files[name] = theirs.read(name)
        manifest = ours.manifest
    inputs, _ = probes(of_run(load_generator(run)), 16)
    golden = OnnxRuntimeBackend(files["onnx/fp32.onnx"], "cpu", "fp32").run(inputs)
    buffer = io.BytesIO()
    np.save(buffer, golden)
    write_bundle(wrong, manifest, {**files, "golden/images.npy": buffer.getvalue()})
    failed = {gate.gate for gate in verify_host(wrong) if not gate.passed}
    assert failed == {"paired FID / floor", "paired, worst class"}


def test_an_export_passes_every_gate(exported) -> None:
    assert {gate.gate for gate in exported.gates if gate.artifact == "onnx fp32"} == {
        "error / rounding",
        "max error",
        "alone and in a batch, dB",
        "max uint8 step",
        "pixels off",
        "FID change",
        "paired FID / floor",
        "paired, worst class",
        "worst pair / two seeds",
    }
    assert all(gate.passed for gate in exported.gates)


def test_a_gate_says_how_many_images_it_saw_and_how_sure_it_is(exported, bundle: Path) -> None:
    counts = {gate.gate: gate.num_images for gate in exported.gates}
    assert counts.pop("paired, worst class") < 500
    assert counts == {
        "error / rounding": 512,
        "max error": 512,
        "alone and in a batch, dB": 6,
        "max uint8 step": 512,
        "largest value / 65,504": 64,
        "pixels off": 512,
        "PSNR, dB": 512,
        "PSNR uint8, dB": 512,
        "worst image uint8, dB": 512,
        "FID change": 1000,
        "paired FID / floor": 1000,
        "worst pair / two seeds": 1000,
    }
    for gate in exported.gates:
        assert (gate.low is None) == (gate.high is None)
        sure = gate.gate in ("PSNR, dB", "PSNR uint8, dB", "FID change", "paired FID / floor")
        if sure and gate.value > 1e-8:  # sets that are equal but for rounding have no interval
            assert gate.low <= gate.value <= gate.high
    hosts = verify_host(bundle)
    assert {gate.num_images for gate in hosts if gate.gate == "paired FID / floor"} == {1000}
    assert all(gate.low is None for gate in hosts)  # torch's images are not in the bundle


def test_two_exports_are_byte_identical(run: Path, tmp_path: Path) -> None:
    paths = [
        export_run(run, tmp_path / name, ExportOptions(verify=False, single_file=True)).path
        for name in ("a.gan", "b.gan")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_an_export_can_be_signed_at_once(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    public = make_keys(tmp_path / "k.pem")
    path = export_run(
        run, tmp_path / "x.gan", ExportOptions(verify=False, sign_key=tmp_path / "k.pem")
    ).path
    Bundle(path, public_key=public).close()


def test_shipped_images_are_torchs(run: Path, bundle: Path) -> None:
    from gantrain.runs.samples import generate

    labels = np.arange(50) % 3
    expected = generate(load_generator(run).network, range(50), labels)
    with Sampler(bundle) as sampler:
        found = sampler.sample(50, labels=labels)
    assert np.mean(found != expected) <= 1e-4
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_clean_bundle_verifies_against_its_run(bundle: Path, run: Path) -> None:
    gates = verify_against_run(bundle, run, num_images=1000)
    assert all(gate.passed and not gate.skipped for gate in gates)
    assert gates[0].gate == "newest checkpoint"


def test_a_bundle_of_an_older_checkpoint_is_stale(run: Path, tmp_path: Path) -> None:
    old = export_run(
        checkpoint_files(run)[0], tmp_path / "old.gan", ExportOptions(num_images=1000)
    ).path
    failed = [gate for gate in verify_against_run(old, run, num_images=1000) if not gate.passed]
    assert failed[0].gate == "newest checkpoint"
    assert failed[0].num_images is None  # 0 would say that it could not be looked at
    assert {"max error", "max uint8 step"} <= {gate.gate for gate in failed}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"precisions": ["int3"]}, ConfigError, "'int3': expected fp32, fp16"),
        ({"min_psnr_db": float("nan")}, ConfigError, "nan: expected decibels"),
        ({"num_images": 10}, ConfigError, "need 1000 or more"),
        ({"precisions": "fp16"}, ConfigError, "found 'fp16'; expected a list"),
        ({"tensorrt": True, "profiles": [(4, 2, 8)]}, ConfigError, "smallest:likeliest:largest"),
        ({"profiles": [(1, 2, 8)]}, ConfigError, "they go with --trt or --trt-target"),
        ({"held_out": Path("x")}, ConfigError, "goes with --with-discriminator"),
        ({"license": "mine; ask"}, ConfigError, "expected SPDX.s name, as CC-BY-4.0"),
        ({"without": ["norm"]}, ConfigError, "there is no 'norm'; did you mean 'norms'"),
        ({"tensorrt": True, "product": "trt"}, ConfigError, "auto, tensorrt or tensorrt_rtx"),
        ({"tensorrt": True, "targets": ["sm1"]}, ExportError, "target sm1: tensorrt_rtx"),
        ({"data": "nowhere"}, DataError, "nowhere: no prepared dataset"),
    ],
)
def test_mistakes_are_named_before_any_work(run, tmp_path, options, error, message) -> None:
    with pytest.raises(error, match=message):
        export_run(run, tmp_path / "x.gan", ExportOptions(**options))
    assert os.listdir(tmp_path) == []


def test_another_dataset_is_refused(run: Path, tmp_path: Path) -> None:
    from gantrain.data.prepare import prepare

    prepare("digits", tmp_path / "digits", resolution=16)
    with pytest.raises(CheckpointError, match="was trained on"):
        export_run(run, tmp_path / "x.gan", ExportOptions(data=tmp_path / "digits"))


def test_a_run_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        export_run(tmp_path, tmp_path / "x.gan")


def test_a_graph_that_does_not_load_fails_verification(run: Path, tmp_path: Path) -> None:
    path = export_run(run, tmp_path / "x.gan", ExportOptions(verify=False)).path
    with Bundle(path) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        write_bundle(path, opened.manifest, {**files, "onnx/fp32.onnx": b""})
    found = {gate.artifact: gate.passed for gate in verify_host(path, device="cpu")}
    found.pop("openvino fp32", None)  # where it is installed
    assert found == {"onnxruntime fp32": False, "onnxruntime fp16": True}


def test_what_cannot_run_here_is_skipped_unless_it_is_required(
    run: Path, tmp_path: Path, gan
) -> None:
    options = ExportOptions(precisions=["fp32", "bf16"], verify=False)
    path = export_run(run, tmp_path / "x.gan", options).path
    skipped = [gate.artifact for gate in verify_host(path, device="cpu") if gate.skipped]
    assert "onnxruntime bf16" in skipped  # its CPU does not compute it
    done = gan("verify", path, "--json", tmp_path / "verdict.json")
    assert done.returncode == Ending.UNVERIFIED
    assert "skip" in done.stdout
    assert "onnxruntime bf16" in done.stdout.splitlines()[-1]
    assert "onnxruntime bf16" in json.loads((tmp_path / "verdict.json").read_text())["skipped"]
    required = verify_host(path, device="cpu", require=["onnxruntime:bf16"])
    assert [gate.artifact for gate in required if not gate.passed] == ["onnxruntime bf16"]
    assert gan("verify", path, "--require", "onnxruntime").returncode == Ending.UNAVAILABLE
    with pytest.raises(BackendUnavailable, match="tensorrt is required, and nothing"):
        verify_host(path, require=["tensorrt"])


def test_tensorrt_asked_for_and_absent_names_its_pip_command(bundle: Path) -> None:
    with pytest.raises(BackendUnavailable, match="--trt"):
        Sampler(bundle, backend="tensorrt")


def test_a_generator_of_truncated_latents_ships_with_its_truncation(
    shapes: Path, tmp_path: Path
) -> None:
    config = parse_config(tiny_recipe(shapes, total_kimg=0.2, truncation=0.5), where="x")
    run = train(config, tmp_path / "run").run
    bundle = export_run(run, tmp_path / "x.gan", ExportOptions(num_images=1000)).path
    with Sampler(bundle) as sampler:
        assert np.array_equal(sampler.sample(4), sampler.sample(4, truncation=0.5))
        assert not np.array_equal(sampler.sample(4), sampler.sample(4, truncation=2.0))
    tree = tiny_recipe(shapes, total_kimg=0.2, truncation=0.5)
    tree["model"]["generator"]["z_distribution"] = "uniform"
    with pytest.raises(ConfigError, match="truncation: G's latent is uniform"):
        train(parse_config(tree, where="x"), tmp_path / "uniform")
