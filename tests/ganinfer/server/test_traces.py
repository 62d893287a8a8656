"""Traces that clients begin, by the W3C's headers, with the real SDK of OpenTelemetry."""

import json
import logging
from pathlib import Path

import pytest

from ganinfer import Sampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from hosting import INFER, hosted, seeds, wait_until

from ganinfer.server import Serving
from ganinfer.server.traces import trace_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize("told", [GOOD, f" {GOOD} ", f"cc-{TRACE}-{SPAN}-01-more"])
def test_a_parent_is_read(told: str) -> None:
    trace = trace_of([told], [])
    assert trace is not None
    assert (trace.trace_id, trace.span_id, trace.flags) == (TRACE, SPAN, 1)


@pytest.mark.parametrize(
    "told",
    [
        (),
        ("",),
        (GOOD, GOOD),
        (GOOD.upper(),),
        (f"{GOOD}-more",),
        (f"{GOOD}0",),
        (f"ff-{TRACE}-{SPAN}-01",),
        (f"cc-{TRACE}-{SPAN}-01more",),
        (f"00-{'0' * 32}-{SPAN}-01",),
        (f"00-{TRACE}-{'0' * 16}-01",),
        (f"00-{TRACE}-{SPAN}",),
        (f"00-{TRACE[1:]}\xb2-{SPAN}-01",),
        ("x" * 10_000,),
    ],
)
def test_what_is_malformed_is_as_if_it_were_not_there(told: tuple[str, ...]) -> None:
    assert trace_of(told, []) is None


def test_spans_are_below_the_clients_and_the_log_names_the_trace(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    export = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter, provider = memory.InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    with (
        Sampler(bundle, device="cpu", batch_size=1) as sampler,
        hosted({"tiny": sampler}, Serving(access_log=True)) as host,
        caplog.at_level(logging.INFO, "ganinfer.server.access"),
    ):
        exporter.clear()  # of warming up
        for n, told in enumerate((GOOD, "00-1-2-3")):
            sent = {"traceparent": told, "tracestate": "shop=7", "X_Request_Id": f"mine-{n}"}
            assert host.post(INFER, seeds(1), **sent).status == 200
            wait_until(lambda n=n: f"mine-{n}" in caplog.text, "it is told")
    lines = [json.loads(r.message) for r in caplog.records if "mine-" in r.message]
    assert [line["trace_id"] for line in lines] == [TRACE, None]
    below, other = (s for s in exporter.get_finished_spans() if s.name == "ganinfer.request")
    assert f"{below.context.trace_id:032x}" == TRACE
    assert f"{below.parent.span_id:016x}" == SPAN
    assert below.context.trace_state["shop"] == "7"
    assert other.parent is None
