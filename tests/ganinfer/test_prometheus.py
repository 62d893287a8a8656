"""One page of metrics, which Prometheus' own parsers take."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import rewrite_manifest

from ganinfer import Sampler
from ganinfer.prometheus import prometheus


@pytest.fixture
def samplers(bundle: Path, copied: Path) -> Iterator[list[Sampler]]:
    """Two of one bundle, and one of another."""
    rewrite_manifest(copied, lambda tree: tree["model"].update(family="another"))
    opened = [Sampler(path, backend="onnxruntime") for path in (bundle, bundle, copied)]
    for n, sampler in enumerate(opened):
        sampler.sample(n + 1)
    yield opened
    for sampler in opened:
        sampler.close()


def test_samplers_make_one_page_and_those_of_a_bundle_are_summed(samplers: list[Sampler]) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    text = prometheus(*samplers, samplers[0])  # one that is named twice counts once
    families = list(parser.text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families) >= 18
    assert all(family.documentation and family.type != "unknown" for family in families)
    samples = [sample for family in families for sample in family.samples]
    values = {(s.name, *sorted(s.labels.items())): s.value for s in samples}
    assert len(values) == len(samples)
    twice, once = (("bundle", sampler.sha256[:12]) for sampler in samplers[1:])
    assert values["ganinfer_images_total", twice] == 3
    assert values["ganinfer_images_total", once] == 3
    assert values["ganinfer_requests_total", twice] == 2
    assert values["ganinfer_requests_total", once] == 1
    assert values["ganinfer_in_flight_requests", twice] == 0
    for name in ("queue", "request", "batch"):
        metric = f"ganinfer_{name}_seconds"
        assert values[f"{metric}_count", twice] >= 2
        assert values[f"{metric}_bucket", twice, ("le", "+Inf")] == values[f"{metric}_count", twice]
    waited = sum(sampler.stats["request_seconds"]["sum"] for sampler in samplers[:2])
    assert values["ganinfer_request_seconds_sum", twice] == pytest.approx(waited)


def test_the_strict_parser_takes_it(samplers: list[Sampler]) -> None:
    """OpenMetrics names a counter without _total where it describes it, and says where it ends."""
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    text = re.sub(r"^(# \w+ \w+)_total ", r"\1 ", prometheus(*samplers), flags=re.MULTILINE)
    families = list(parser.text_string_to_metric_families(f"{text}# EOF\n"))
    assert {family.type for family in families} == {"counter", "gauge", "histogram"}


def test_every_metric_is_described_once(samplers: list[Sampler]) -> None:
    lines = prometheus(*samplers).splitlines()
    said = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert said == [line.split()[2] for line in lines if line.startswith("# HELP ")]
    assert len(set(said)) == len(said)
    names = {re.match(r"\w+", line)[0] for line in lines if line[0] != "#"}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in names} == set(said)


def test_a_closed_sampler_still_tells_and_none_is_no_error(samplers: list[Sampler]) -> None:
    samplers[2].close()
    assert f'ganinfer_images_total{{bundle="{samplers[2].sha256[:12]}"}} 3' in prometheus(
        samplers[2]
    )
    assert prometheus() == ""
