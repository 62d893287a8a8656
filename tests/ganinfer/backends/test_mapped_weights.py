"""Runtimes that map their weights give the same images, whatever becomes of the files."""

import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ganinfer import Sampler
from ganinfer.backends.onnxruntime import _PACKS_INTO_FILES, _numbers
from ganinfer.host import mapped as module
from ganinfer.host.mapped import folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are mapped on Linux alone")
ONNXRUNTIME = pytest.param(
    "onnxruntime",
    marks=pytest.mark.skipif(
        _numbers(onnxruntime.__version__) < _PACKS_INTO_FILES,
        reason="this onnxruntime is too old to map what it packs",
    ),
)
BACKENDS = pytest.mark.parametrize("backend", [ONNXRUNTIME, "openvino"])


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "LEAST_BYTES", 0)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@BACKENDS
def test_images_are_those_of_weights_that_are_not_mapped(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, backend: str, precision: str
) -> None:
    if (backend, precision) == ("openvino", "fp16"):
        pytest.skip("OpenVINO takes no fp16 on CPUs")
    asked = {"backend": backend, "precision": precision, "threads": 2}
    with monkeypatch.context() as patch:
        patch.setenv("GANINFER_MAP", "0")
        with Sampler(bundle, **asked) as sampler:
            assert "weights" not in sampler._runner.backends[0].details
            expected = [sampler.sample(n, seed=n) for n in (1, 64)]
    for _ in range(2):  # made, and found
        with Sampler(bundle, **asked) as sampler:
            assert sampler._runner.backends[0].details["weights"] == "mapped"
            assert str(folder()) in Path("/proc/self/maps").read_text()
            for images in expected:
                n = len(images)
                np.testing.assert_array_equal(sampler.sample(n, seed=n), images)


@BACKENDS
def test_an_open_sampler_survives_an_emptied_cache(bundle: Path, backend: str) -> None:
    with Sampler(bundle, backend=backend, precision="fp32", threads=2) as sampler:
        one = sampler.sample(1, seed=3)
        shutil.rmtree(folder())
        np.testing.assert_array_equal(sampler.sample(64, seed=3)[:1], one)


@BACKENDS
def test_files_that_a_runtime_refuses_are_done_without(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_is_whole", lambda kept: kept.exists())
    with Sampler(bundle, backend=backend, precision="fp32") as sampler:
        expected = sampler.sample(4)
    (kept,) = (place for place in folder().iterdir() if place.is_dir())
    for file in kept.iterdir():
        file.write_bytes(b"")
    with Sampler(bundle, backend=backend, precision="fp32") as sampler:
        np.testing.assert_array_equal(sampler.sample(4), expected)
    assert "not shared with other processes" in caplog.text
