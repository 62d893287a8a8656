"""The threads of a process that compute, which all its samplers share."""

import random
import threading
from pathlib import Path
from typing import Any

import pytest

from ganinfer import Sampler
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.host import budget as budgets
from ganinfer.host.budget import Budget


class Seen:
    """How many threads are taken, and were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def add(self, threads: int) -> None:
        with self._lock:
            self.now += threads
            self.most = max(self.most, self.now)


def run_all(targets: list[Any]) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_no_more_are_taken_than_there_are_and_all_get_their_turn() -> None:
    budget, seen, chance = Budget(4), Seen(), random.Random(0)

    def take(wanted: list[int]) -> None:
        for threads in wanted:
            with budget.taking(threads), budget.taking(4):  # the inner ones are a part of these
                seen.add(min(threads, 4))
                seen.add(-min(threads, 4))

    run_all([lambda: take([chance.randint(1, 6) for _ in range(200)]) for _ in range(8)])
    assert seen.most <= 4
    assert budget.take(4)


def test_samplers_of_a_process_share_its_threads(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "_budget", Budget(2))
    monkeypatch.setattr("ganinfer.backends.onnxruntime.usable_cpus", lambda: 2)
    run, seen = OnnxRuntimeBackend.run, Seen()

    def seen_running(backend: OnnxRuntimeBackend, inputs: Any, *, alone: bool, **rest: Any) -> Any:
        threads = int(backend.details["threads"]) // (1 if alone else backend.parallel_runs)
        seen.add(threads)
        try:
            return run(backend, inputs, alone=alone, **rest)
        finally:
            seen.add(-threads)

    monkeypatch.setattr(OnnxRuntimeBackend, "run", seen_running)
    opening = {"backend": "onnxruntime", "device": "cpu", "batch_size": 4}
    with Sampler(bundle, **opening) as one, Sampler(bundle, **opening) as two:
        asks = [lambda s=s, n=n: s.sample(n) for s in (one, two) for n in (1, 30, 200)]
        run_all(asks)
    assert 0 < seen.most <= 2
