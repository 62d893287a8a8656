"""Statistics add up, whatever callers and backends do."""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rough import Rough, rough_batcher

from ganinfer import DeadlineExceeded, QueueFull, Sampler
from ganinfer.errors import BackendUnavailable, Closed
from ganinfer.scheduler.batching import Batcher
from ganinfer.scheduler.request import Request
from ganinfer.scheduler.stats import BOUNDS_S, Stats

ENDS = ("requests", "late", "cancelled", "failed", "closed")
GAUGES = ("queue_requests", "queue_images", "in_flight")


def end_of(future: Future) -> str:
    """As the caller sees it, by its name in the statistics."""
    try:
        future.result(60)
    except (CancelledError, DeadlineExceeded, Closed, BackendUnavailable) as error:
        names = {CancelledError: "cancelled", DeadlineExceeded: "late", Closed: "closed"}
        return names.get(type(error), "failed")
    return "requests"


class Caller:
    """Asks in all ways, a few requests at a time, until the batcher is closed."""

    def __init__(self, number: int, backend: Rough, batcher: Batcher, made: list[int]) -> None:
        self.ends: Counter[str] = Counter()
        self._rng = random.Random(number)
        self._backend, self._batcher, self._made = backend, batcher, made

    def call(self) -> None:
        closed = False
        while not closed:
            waiting = []
            for _ in range(3):
                self._made.append(1)
                try:
                    waiting.append(self._ask())
                except QueueFull:
                    self.ends["refused"] += 1
                    time.sleep(0.001)
                except Closed:  # as it was asked for: nobody counts it
                    closed = True
            self.ends.update(map(end_of, waiting))

    def _ask(self) -> Future:
        rng, backend = self._rng, self._backend
        n, way = rng.choice([0, 1, 2, 3, 9]), rng.randrange(8)
        if way == 0:
            return self._on_device(backend.request(2, fails=rng.random() < 0.5))
        if way == 1:
            return self._batcher.submit(backend.request(n + 1, deadline=time.monotonic()))
        if way == 2:
            return self._batcher.submit(backend.request(n + 1, fails=True))
        if way == 3:
            return self._batcher.serve(
                backend.request(n)
            )  # in this thread, if nothing else is to do
        if way == 4:
            return self._batcher.serve(backend.request(n, deadline=time.monotonic() + 60))
        future = self._batcher.submit(backend.request(n))
        if way == 7:
            time.sleep(rng.choice([0, 0.002]))
            future.cancel()
        return future

    def _on_device(self, asked: Request) -> Future:
        found: Future = Future()
        try:
            found.set_result(self._batcher.run_on_device(asked.wanted))
        except BackendUnavailable as error:
            found.set_exception(error)
        return found


def accepted(found: dict[str, Any]) -> int:
    return sum(found[name] for name in (*ENDS, "queue_requests", "in_flight"))


def test_every_request_ends_once_and_is_somewhere_until_then(bundle: Path) -> None:
    stats, made = Stats(), list[int]()
    with (
        ThreadPoolExecutor(8) as pool,
        rough_batcher(bundle, stats, parallel_runs=2) as (rough, batcher),
    ):
        callers = [Caller(number, rough, batcher, made) for number in range(8)]
        running = [pool.submit(caller.call) for caller in callers]
        before = 0
        while len(made) < 1500:
            found = stats.read()
            assert before <= accepted(found) <= len(made)
            assert all(found[name] >= 0 for name in GAUGES)
            assert found["queue_requests"] <= 8
            assert found["queue_images"] <= 40
            before = accepted(found)
            assert not any(one.done() for one in running)
            time.sleep(0.001)
        rough.gate.clear()  # so that something waits as it closes
        while not stats.read()["queue_requests"]:
            time.sleep(0.001)
        threading.Timer(0.1, rough.gate.set).start()
        batcher.close(cancel=True)
        for one in running:
            one.result(60)
    found = stats.read()
    seen = sum((caller.ends for caller in callers), Counter())
    assert {name: found[name] for name in (*ENDS, "refused")} == seen
    assert min(seen.values()) > 0  # all ends were met
    assert all(found[name] == 0 for name in GAUGES)
    assert found["queue_seconds"]["count"] == found["requests"]
    assert found["request_seconds"]["count"] == found["requests"]
    assert found["batch_seconds"]["count"] == found["batches"]
    assert found["batch_seconds"]["sum"] == found["device_s"] > 0
    assert found["failed_batches"] >= found["failed"]
    assert json.loads(json.dumps(found)) == found


def test_a_request_waits_until_its_first_batch(bundle: Path) -> None:
    """And is in the queue until its last image is begun."""
    stats = Stats()
    with rough_batcher(bundle, stats) as (rough, batcher):
        rough.gate.clear()
        asked = rough.request(9)
        future = batcher.submit(asked)
        assert rough.entered.acquire(timeout=60)
        begun, found = asked.begun, stats.read()
        assert begun > asked.arrived
        assert [found[name] for name in GAUGES] == [1, 9, 0]
        rough.gate.set()
        assert future.result(60).any()
        found = stats.read()
    assert [found[name] for name in (*GAUGES, "requests", "batches")] == [0, 0, 0, 1, 3]
    assert found["queue_seconds"]["sum"] == begun - asked.arrived


def test_what_runs_in_its_callers_thread_is_in_flight(bundle: Path) -> None:
    stats = Stats()
    with ThreadPoolExecutor(1) as pool, rough_batcher(bundle, stats) as (rough, batcher):
        rough.gate.clear()
        served = pool.submit(batcher.serve, rough.request(2))
        assert rough.entered.acquire(timeout=60)
        found = stats.read()
        assert [found[name] for name in (*GAUGES, "requests")] == [0, 0, 1, 0]
        rough.gate.set()
        assert served.result(60).result(60).any()
        assert stats.read()["requests"] == 1


class CancelledAsSomebodyLooks(Future):
    def cancelled(self) -> bool:
        found = super().cancelled()
        self.cancel()
        return found


def test_a_request_that_is_cancelled_as_a_worker_looks_is_told_and_counted(bundle: Path) -> None:
    stats = Stats()
    with rough_batcher(bundle, stats) as (rough, batcher):
        asked = rough.request(2)
        asked.future = CancelledAsSomebodyLooks()
        assert not wait([batcher.submit(asked)], timeout=60).not_done
    found = stats.read()
    assert [found[name] for name in (*GAUGES, "cancelled", "batches")] == [0, 0, 0, 1, 0]


def test_all_ways_of_asking_are_counted(bundle: Path) -> None:
    async def ask() -> None:
        await asyncio.gather(*(sampler.asample(2, seed=seed) for seed in range(3)))

    with Sampler(bundle, backend="onnxruntime", batch_size=4) as sampler:
        sampler.sample(1)
        sampler.sample(10)  # in several batches
        sampler.sample(0)
        sampler.submit(3).result(60)
        asyncio.run(ask())
        _, z = sampler.sample(2, return_latents=True)
        sampler.generate(z, [0, 1])
        sampler.sample_on_device(4)
        assert len(list(sampler.stream(4, 2))) == 2
        found = sampler.stats
    assert found["requests"] == found["request_seconds"]["count"] == 12
    assert found["images"] == 1 + 10 + 3 + 6 + 2 + 2 + 4 + 4
    assert accepted(found) == 12


def test_buckets_are_cumulative_and_hold_their_bounds() -> None:
    stats = Stats()
    for run_s in (BOUNDS_S[0], 0.0006, 0.0006, 30.0, 61.0):
        stats.batch(images=1, size=1, draw_s=0.0, run_s=run_s)
    found = stats.read()["batch_seconds"]
    buckets = found["buckets"]
    assert list(map(float, buckets)) == [*BOUNDS_S, np.inf]
    assert [buckets[le] for le in ("0.0005", "0.001", "10.0", "30.0", "60.0", "+Inf")] == [
        *(1, 3, 3, 4, 4, 5)
    ]
    assert found["count"] == 5
    assert found["sum"] == pytest.approx(91.0017)


def test_percentiles_are_those_of_the_last_thousands() -> None:
    stats = Stats()
    assert stats.read()["device_ms"] == {"p50": 0.0, "p90": 0.0, "p99": 0.0}
    for run_s in [1.0] * 5000 + [0.25] * 4096:
        stats.batch(images=1, size=1, draw_s=0.0, run_s=run_s)
    assert stats.read()["device_ms"] == {"p50": 250.0, "p90": 250.0, "p99": 250.0}
