import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

import ganinfer.bench
from ganinfer.bench import Report, bench, tune
from ganinfer.bench.chart import bar_chart
from ganinfer.bench.measure import Asked, Measured, Refused, Served
from ganinfer.cli.bench import _show
from ganinfer.errors import BackendUnavailable, ConfigError
from ganinfer.host.tuned import recall

SECONDS = 0.02


@pytest.fixture(scope="module")
def report(bundle: Path) -> Report:
    """Of real processes: of a backend that opens, and of one that does not."""
    backends = ["onnxruntime", "onnxruntime_tensorrt"]
    return bench(bundle, backends=backends, precisions=["fp32"], seconds=SECONDS)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_candidate_has_all_figures(report: Report) -> None:
    (found,) = report.measured
    assert (found.name, found.device) == ("onnxruntime fp32", "cpu")
    assert min(found.import_s, found.open_s, found.first_image_ms) > 0
    if found.open_mib is not None and found.memory_mib is not None:
        assert 1 < found.open_mib <= found.memory_mib < 4000
    assert sorted(found.images_per_s) == [1, 8, 64]
    assert sorted(found.served) == [1, 8, 32]
    assert all(0 < served.p50_ms <= served.p99_ms for served in found.served.values())
    assert sum(found.time_shares.values()) >= 1 - 1e-9
    assert found.share_of_bare == found.images_per_s[64] / found.bare_images_per_s


def test_arithmetic_is_that_of_the_bundles_graph(report: Report) -> None:
    assert report.macs is not None
    first = report.measured[0]
    assert first.gmacs_per_s == pytest.approx(report.macs * first.images_per_s[64] / 1e9)
    assert first.machine_gmacs_per_s is not None
    assert first.share_of_machine == first.gmacs_per_s / first.machine_gmacs_per_s
    on_gpu = dataclasses.replace(first, device="cuda:0", machine_gmacs_per_s=None)
    assert on_gpu.share_of_machine is None


def test_what_does_not_open_is_named_with_its_reason(report: Report) -> None:
    (refused,) = report.refused
    assert (refused.backend, refused.precision) == ("onnxruntime_tensorrt", "fp32")
    assert "has no TensorRT" in refused.reason


def test_all_figures_are_written_for_machines(report: Report) -> None:
    record = json.loads(report.to_json())
    assert record["host"]["versions"].keys() >= {"python", "numpy", "onnxruntime"}
    assert record["measured"][0]["images_per_s"].keys() == {"1", "8", "64"}
    assert record["psnr_db"].keys() == {"fp16"}


def test_where_nothing_opens_the_reasons_are_the_error(bundle: Path) -> None:
    with pytest.raises(BackendUnavailable, match="nothing can be measured.*has no TensorRT"):
        bench(bundle, backends=["onnxruntime_tensorrt"], precisions=["fp32"], seconds=SECONDS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backends": ["coreml"]}, ConfigError, "there is no 'coreml'"),
        ({"precisions": ["int8"]}, BackendUnavailable, "no int8 .* onnxruntime: fp32, fp16"),
        ({"backends": ["tensorrt"]}, BackendUnavailable, "tensorrt: none"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_at_once(bundle, options, error, message) -> None:
    with pytest.raises(error, match=message):
        bench(bundle, **options)


@pytest.mark.parametrize(
    ("process", "reason"),
    [
        ("raise MemoryError('no room')", "failed: MemoryError: no room"),
        ("import os; os.kill(os.getpid(), 9)", "ended: Killed"),
    ],
)
def test_a_process_that_dies_is_a_reason(process: str, reason: str) -> None:
    asked = Asked("x.gan", "onnxruntime", "fp32", "auto", SECONDS)
    found = ganinfer.bench._in_a_process(process, asked, Measured)
    assert isinstance(found, Refused)
    assert found.reason.endswith(reason)


def test_the_fastest_in_bulk_is_remembered(report: Report, own_cache: None) -> None:
    (slow,) = report.measured
    rates = {64: 2.5 * slow.images_per_s[64]}
    fast = dataclasses.replace(slow, precision="fp16", images_per_s=rates)
    choice = tune(dataclasses.replace(report, measured=[slow, fast]))
    assert (choice.backend, choice.precision) == ("onnxruntime", "fp16")
    assert choice.compared == "2.5x onnxruntime fp32"
    assert recall(report.sha256) == choice


def widest(report: Report) -> Report:
    """With the longest names and largest figures that may occur."""
    rates = dict.fromkeys((1, 8, 64, 256), 987654.3)
    served = dict.fromkeys((1, 8, 32), Served(12345.6, 12345.6, 98765.4))
    shares = {"latents": 0.991, "device": 0.991, "rest": 0.991}
    found = Measured("onnxruntime_tensorrt", "fp16", "cuda:0", 10.12, 100.12, 12345.6, 12345.6,
                     12345.6, rates, served, shares, 987654.3, 12.345, 123456.7, 345.6)  # fmt: skip
    return dataclasses.replace(report, measured=[*report.measured, found])


def test_tables_fit_a_hundred_columns(report: Report, capsys) -> None:
    _show(widest(report))
    lines = capsys.readouterr().out.splitlines()
    tables = lines[: next(n for n, line in enumerate(lines) if line.startswith("MACs"))]
    assert max(len(line.rstrip()) for line in tables) <= 100
    assert sum(line.startswith("onnxruntime_tensorrt fp16") for line in tables) == 3
    assert lines[-1].startswith("not measured: onnxruntime_tensorrt fp32: this onnxruntime")


def test_the_picture_has_a_bar_for_each_candidate_and_size(report: Report) -> None:
    named = dataclasses.replace(report, bundle="a/<b>&.gan")
    root = ElementTree.fromstring(bar_chart(widest(named)))
    bars = [e for e in root.iter() if e.tag.endswith("rect") and "x" in e.attrib]
    assert len(bars) == 3 + 4
    assert all(0 <= float(bar.attrib["width"]) <= 720 for bar in bars)
    assert any(element.text == "<b>&.gan: images/s" for element in root.iter())
