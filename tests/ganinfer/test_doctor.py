"""gan doctor: what this host has, and what each missing thing needs."""

import json
import sys
from pathlib import Path

import pytest

from ganinfer.doctor import Finding, examine


def findings() -> dict[str, Finding]:
    found = examine()
    assert len({finding.part for finding in found}) == len(found)
    return {finding.part: finding for finding in found}


def test_what_is_here_is_tried() -> None:
    found = findings()
    assert "CPUExecutionProvider opens" in found["onnxruntime"].found
    assert not found["processor"].missing
    assert "serve" in found["extras"].found.split(", ")


def test_what_is_missing_comes_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = findings()
    assert "pip install 'ganpipe[openvino]'" in found["openvino"].missing
    assert "pip install 'ganpipe[tensorrt]'" in found["tensorrt"].missing
    assert "CUDA_VISIBLE_DEVICES" in found["gpu"].found


def test_it_tells_no_secret_and_no_place_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GANINFER_API_KEY", "hush")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    told = findings()
    assert "hush" not in str(told)
    assert "GANINFER_API_KEY=***" in told["environment"].found
    assert "XDG_CACHE_HOME" in told["cache"].missing


def test_the_commands(gan) -> None:
    assert "ganpipe " in gan("--version").stdout
    rows = json.loads(gan("doctor", "--json").stdout)
    assert {"part", "found", "missing"} == set(rows[0])
    assert "onnxruntime" in gan("doctor").stdout
