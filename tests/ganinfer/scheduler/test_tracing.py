"""Spans of requests and batches, by the real SDK of OpenTelemetry."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rough import Rough, rough_batcher

from ganinfer import DeadlineExceeded, QueueFull, Sampler
from ganinfer.errors import BackendUnavailable, Closed
from ganinfer.scheduler.batching import Batcher
from ganinfer.scheduler.stats import Stats

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")


class Traced:
    """A tracer of the program's own, and the spans that have ended."""

    def __init__(self) -> None:
        self._exporter = memory.InMemorySpanExporter()
        self.provider = sdk.TracerProvider()
        self.provider.add_span_processor(export.SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("program")

    def named(self, name: str) -> list[Any]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Traced:
    found = Traced()
    monkeypatch.setattr(trace, "get_tracer", found.provider.get_tracer)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: found.provider)
    return found


@pytest.fixture
def sampler(bundle: Path, traced: Traced) -> Iterator[Sampler]:
    with Sampler(bundle, backend="onnxruntime") as opened:
        yield opened


def test_a_request_is_a_span_below_that_of_its_caller(sampler: Sampler, traced: Traced) -> None:
    began = time.time_ns()
    with traced.tracer.start_as_current_span("page") as page:
        sampler.sample(1)
        sampler.submit(5).result(60)
        sampler.sample_on_device(2)
        sampler.sample(0)
    spans = traced.named("ganinfer.request")
    assert [span.attributes["ganinfer.images"] for span in spans] == [1, 5, 2, 0]
    for span in spans:
        assert span.parent.span_id == page.get_span_context().span_id
        assert began <= span.start_time <= span.end_time <= time.time_ns()
        assert span.attributes["ganinfer.bundle"] == sampler.sha256[:12]
        assert span.attributes["ganinfer.backend"] == "onnxruntime"
        assert span.attributes["ganinfer.device"] == "cpu"
        assert span.attributes["ganinfer.precision"] == sampler.info["precision"]
        assert span.attributes["ganinfer.outcome"] == "answered"
        assert span.attributes["ganinfer.queue_s"] >= 0
        assert span.status.is_ok


def test_each_task_has_its_own_parent(sampler: Sampler, traced: Traced) -> None:
    async def page(name: str) -> None:
        with traced.tracer.start_as_current_span(name):
            await asyncio.sleep(0)
            await sampler.asample(1)

    async def pages() -> None:
        await asyncio.gather(page("one"), page("two"))

    asyncio.run(pages())
    parents = {span.parent.span_id for span in traced.named("ganinfer.request")}
    pages_seen = (*traced.named("one"), *traced.named("two"))
    assert parents == {span.context.span_id for span in pages_seen}


@pytest.fixture
def rough(bundle: Path, traced: Traced) -> Iterator[tuple[Rough, Batcher]]:
    with rough_batcher(bundle, Stats(), max_queue=2, tracer=traced.tracer) as (backend, batcher):
        backend.gate.clear()
        batcher.submit(backend.request(1))
        assert backend.entered.acquire(timeout=60)  # what comes next has to wait
        yield backend, batcher


def test_a_span_tells_how_its_request_ended(rough: tuple[Rough, Batcher], traced: Traced) -> None:
    backend, batcher = rough
    with pytest.raises(DeadlineExceeded):
        batcher.submit(backend.request(2, deadline=time.monotonic())).result(60)
    assert batcher.submit(backend.request(3)).cancel()
    failing = batcher.submit(backend.request(2, fails=True))
    other = batcher.submit(backend.request(2))
    with pytest.raises(QueueFull):
        batcher.submit(backend.request(4))
    backend.gate.set()
    with pytest.raises(BackendUnavailable):
        failing.result(60)
    assert other.result(60).any()
    batcher.close()
    spans = {span.attributes["ganinfer.outcome"]: span for span in traced.named("ganinfer.request")}
    images = {name: span.attributes["ganinfer.images"] for name, span in spans.items()}
    assert images == {"late": 2, "cancelled": 3, "failed": 2, "refused": 4, "answered": 2}
    errors = {name: [event.name for event in span.events] for name, span in spans.items()}
    told = {name for name, events in errors.items() if events == ["exception"]}
    assert told == {"late", "failed", "refused"}
    assert told == {name for name, span in spans.items() if not span.status.is_ok}
    assert spans["failed"].status.description == "the device cannot stand this latent"


def test_a_batch_is_below_its_first_request_and_linked_to_the_others(
    rough: tuple[Rough, Batcher], traced: Traced
) -> None:
    backend, batcher = rough
    failing = batcher.submit(backend.request(2, fails=True))
    batcher.submit(backend.request(2))
    backend.gate.set()
    batcher.close()
    assert failing.exception() is not None
    first, *others = traced.named("ganinfer.request")
    failed = next(s for s in others if not s.status.is_ok).context.span_id
    good = next(s for s in others if s.status.is_ok).context.span_id
    batches = traced.named("ganinfer.batch")
    parents = [batch.parent.span_id for batch in batches]
    assert parents == [first.context.span_id, failed, failed, good]  # together, then each alone
    links = [[link.context.span_id for link in batch.links] for batch in batches]
    assert links == [[], [good], [], []]
    assert [batch.status.is_ok for batch in batches] == [True, False, False, True]
    assert [batch.attributes["ganinfer.images"] for batch in batches] == [1, 4, 2, 2]


def test_closing_is_told_by_the_span(rough: tuple[Rough, Batcher], traced: Traced) -> None:
    backend, batcher = rough
    waiting = batcher.submit(backend.request(2))
    threading.Timer(0.1, backend.gate.set).start()
    batcher.close(cancel=True)
    with pytest.raises(Closed):
        waiting.result(60)
    outcomes = [s.attributes["ganinfer.outcome"] for s in traced.named("ganinfer.request")]
    assert sorted(outcomes) == ["answered", "closed"]
