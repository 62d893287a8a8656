"""What opens, and what is tried next when it gives other images than it should."""

import logging
from pathlib import Path
from typing import Any

import pytest

from ganinfer import ParityError, Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.backends.openvino import OpenVINOBackend


def spoil(monkeypatch: pytest.MonkeyPatch, backend: type) -> None:
    run = backend.run

    def wrong(self: Any, *args: Any, **options: Any) -> Any:
        images = run(self, *args, **options)
        images ^= 64
        return images

    monkeypatch.setattr(backend, "run", wrong)


def test_of_auto_the_next_backend_is_tried_where_one_gives_other_images(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino")
    spoil(monkeypatch, OpenVINOBackend)
    with caplog.at_level(logging.WARNING), Sampler(bundle, device="cpu") as sampler:
        info = sampler.info
    assert info["backend"] == "onnxruntime"
    assert "openvino: " in info["reason"]
    assert "golden gate" in info["reason"]
    assert "trying what else there is" in caplog.text


def test_a_backend_that_was_asked_for_is_never_replaced(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, OnnxRuntimeBackend)
    with pytest.raises(ParityError, match="golden gate: onnxruntime on cpu in fp32"):
        Sampler(bundle, backend="onnxruntime")


def test_where_all_give_other_images_nothing_opens(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, OnnxRuntimeBackend)
    spoil(monkeypatch, OpenVINOBackend)
    with pytest.raises(ParityError, match="golden gate"):
        Sampler(bundle, device="cpu")
