from collections.abc import Sequence
from pathlib import Path

import pytest

from ganinfer.bundle.archive import Bundle, write_bundle
from ganinfer.bundle.engine_report import read_report
from ganinfer.bundle.manifest import Engine
from ganinfer.errors import BundleError


def with_report(
    bundle: Path, path: Path, report: bytes, profile: Sequence[int] = (1, 8, 16)
) -> Path:
    """A copy of a bundle with an engine of no worth and this report of it."""
    key = "0" * 64
    entry = Engine(
        path=f"engines/{key}.plan",
        report=f"engines/{key}.json",
        key=key,
        onnx_sha256=key,
        product="tensorrt",
        version="10.12.0.36",
        platform="linux-x86_64",
        target="sm89",
        precision="fp16",
        profiles=[[1, 8, 16]],
        status="pending",
    )
    with Bundle(bundle) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files}
        entry = entry.model_copy(update={"profiles": [list(profile)]})  # unchecked
        manifest = opened.manifest.model_copy(update={"engines": [entry]})
    write_bundle(path, manifest, {**files, entry.path: b"plan", entry.report: report})
    return path


def test_a_report_that_is_none_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    path = with_report(bundle, tmp_path / "x.gan", b"{}")
    with (
        Bundle(path) as opened,
        pytest.raises(BundleError, match=r"engines/0+\.json read_from: missing"),
    ):
        read_report(opened, opened.manifest.engines[0])


def test_batches_that_do_not_rise_are_refused(bundle: Path, tmp_path: Path) -> None:
    path = with_report(bundle, tmp_path / "x.gan", b"{}", profile=[16, 8, 1])
    with pytest.raises(BundleError, match=r"profiles.0: found \[16, 8, 1\]; expected smallest"):
        Bundle(path)


def test_an_engine_without_its_report_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = with_report(bundle, tmp_path / "x.gan", b"{}")
    with Bundle(path) as opened:
        files = {name: opened.read(name) for name in opened.manifest.files if "json" not in name}
        manifest = opened.manifest
    write_bundle(path, manifest, files)
    with pytest.raises(BundleError, match=r"engines/0+\.json is missing"):
        Bundle(path)


def test_a_pending_engine_says_that_its_precision_has_never_run(
    gan, bundle: Path, tmp_path: Path
) -> None:
    told = gan("inspect", with_report(bundle, tmp_path / "x.gan", b"{}")).stdout
    assert "pending: in fp16 it has never run on a GPU" in " ".join(told.split())
