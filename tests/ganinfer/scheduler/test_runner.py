"""What opens, and what is tried next when it gives other images than it should."""

import logging
from pathlib import Path
from typing import Any

import pytest

from ganinfer import ParityError, Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.backends.openvino import OpenVINOBackend
from ganinfer.errors import Closed


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


def test_a_pool_computes_in_one_precision(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or who is idle would decide what an image looks like."""
    import ganinfer.backends._open

    asked: list[str] = []
    open_backend = ganinfer.backends._open.open_backend

    def recorded(opened: Any, name: str, device: str, precision: str, **options: Any) -> Any:
        asked.append(precision)
        return open_backend(opened, name, device, precision, **options)

    monkeypatch.setattr(ganinfer.backends._open, "open_backend", recorded)
    with Sampler(bundle, device=["cpu", "cpu"]) as sampler:
        assert asked == ["auto", sampler.info["precision"]]


def test_auto_ends_at_the_cpu_even_where_there_is_a_gpu(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ganinfer.backends._open

    monkeypatch.setattr(ganinfer.backends._open, "gpu_present", lambda: True)
    with Sampler(bundle, backend="auto") as sampler:
        info = sampler.info
    assert info["device"] == "cpu"
    assert "onnxruntime: device 'cuda" in info["reason"]


def test_images_on_the_device_and_closing_do_not_meet(bundle: Path) -> None:
    sampler = Sampler(bundle, device="cpu")
    sampler.close()
    for use in (lambda: sampler.sample_on_device(1), lambda: sampler.info):
        with pytest.raises(Closed, match="closed"):
            use()
