"""Sampler under load: many threads and tasks, cancellations, a backend that fails now and then.

    python benchmarks/soak.py BUNDLE [--minutes 5] [--backend openvino] [-o FILE.json]

Thirty-two threads and two hundred asyncio tasks ask for 1 to 500 images with labels and
truncations of their own; one request in twenty is cancelled, one batch in five hundred fails. Every
answer is compared, bit for bit, with what the same request gives alone. Then throughput: eight
callers of small requests who share a Sampler against eight who take turns, and the load's images/s
against one large caller.
"""

import argparse
import asyncio
import ctypes
import gc
import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ganinfer import Sampler
from ganinfer.drawing.inputs import draw_inputs, labels_of
from ganinfer.drawing.latents import seed_array
from ganinfer.errors import BackendUnavailable, QueueFull

NUM_THREADS, NUM_TASKS, NUM_KINDS = 32, 200, 60


def resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS")


def at_rest() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return resident_mib()


def kinds(sampler: Sampler) -> list[dict[str, Any]]:
    """Requests that differ; small ones are frequent, as in a product."""
    rng = random.Random(0)
    modes = sampler.info["truncation_modes"]
    found = []
    for n in range(NUM_KINDS):
        size = rng.choice([1, 1, 1, 2, 3, 4, 8, 16, 33]) if n % 10 else rng.randint(100, 500)
        label = rng.randrange(len(sampler.classes)) if sampler.classes and n % 3 else None
        truncation = rng.choice([0.5, 0.7, 1.0]) if modes and n % 4 == 0 else None
        found.append(
            {"n": size, "seed": rng.randrange(1 << 40), "labels": label, "truncation": truncation}
        )
    return found


class Flaky:
    """Makes a backend fail now and then."""

    def __init__(self, backend: Any, share: float) -> None:
        self._run, self._share, self._rng = backend.run, share, random.Random(1)
        self.failed = 0
        backend.run = self.run

    def run(self, inputs: Any, **options: Any) -> Any:
        if self._rng.random() < self._share:
            self.failed += 1
            raise BackendUnavailable("injected")
        return self._run(inputs, **options)


def soak(
    sampler: Sampler,
    seconds: float,
    *,
    num_threads: int = NUM_THREADS,
    num_tasks: int = NUM_TASKS,
    fault_share: float = 1 / 500,
    most_steps: int = 0,
) -> dict[str, Any]:
    """The load. most_steps: of uint8, that an answer may differ, as a GPU's batches do."""
    asked = kinds(sampler)
    alone = [sampler.sample(**one) for one in asked]
    before = sampler.stats["images"]
    backend = sampler._runner.backends[0]
    flaky = Flaky(backend, fault_share)
    outcomes: Counter[str] = Counter()
    images = 0
    end, lock = time.monotonic() + seconds, threading.Lock()
    peak = 0.0

    def record(outcome: str, count: int = 0) -> None:
        nonlocal images
        with lock:
            outcomes[outcome] += 1
            images += count

    def judge(kind: int, answer: np.ndarray) -> None:
        right = alone[kind]
        same = answer.shape == right.shape
        same = same and np.abs(answer.astype(np.int16) - right).max() <= most_steps
        record("right" if same else "WRONG", len(answer))

    def caller(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < end:
            kind = rng.randrange(len(asked))
            try:
                future = sampler.submit(**asked[kind])
                if rng.random() < 0.05 and future.cancel():
                    record("cancelled")
                    continue
                judge(kind, future.result(120))
            except BackendUnavailable:
                record("failed as injected")
            except QueueFull:
                record("queue full")

    async def task(number: int) -> None:
        rng = random.Random(1000 + number)
        while time.monotonic() < end:
            kind = rng.randrange(len(asked))
            waiting = asyncio.ensure_future(sampler.asample(**asked[kind]))
            if rng.random() < 0.05:
                await asyncio.sleep(0)
                waiting.cancel()
            try:
                judge(kind, await waiting)
            except (asyncio.CancelledError, CancelledError):
                record("cancelled")
            except BackendUnavailable:
                record("failed as injected")
            except QueueFull:
                record("queue full")

    async def tasks() -> None:
        await asyncio.gather(*(task(n) for n in range(num_tasks)))

    def watch() -> None:
        nonlocal peak
        while time.monotonic() < end:
            peak = max(peak, resident_mib())
            time.sleep(1)

    threads = [threading.Thread(target=caller, args=(n,)) for n in range(num_threads)]
    threads += [
        threading.Thread(target=lambda: asyncio.run(tasks())),
        threading.Thread(target=watch),
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.monotonic() - start
    drawn = sampler.stats["images"] - before
    del backend.run  # it fails no more
    return {
        "seconds": wall,
        "outcomes": dict(outcomes),
        "injected": flaky.failed,
        "images_per_s": drawn / wall,  # those of failed and cancelled requests, too
        "answered_per_s": images / wall,
        "peak_memory_mib": peak,
        "stats": sampler.stats,
    }


def throughput(path: Path, options: dict[str, Any]) -> dict[str, float]:
    """Small requests: eight threads sharing, against the same requests in turn."""

    def together(sampler: Sampler, count: int) -> float:
        start = time.perf_counter()
        threads = [
            threading.Thread(target=lambda n=n: [sampler.sample(1, seed=n) for _ in range(count)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return 8 * count / (time.perf_counter() - start)

    def in_turn(sampler: Sampler, count: int) -> float:
        start = time.perf_counter()
        for n in range(8):
            for _ in range(count):
                sampler.sample(1, seed=n)
        return 8 * count / (time.perf_counter() - start)

    def bare(sampler: Sampler, size: int, threads: int) -> float:
        """The backend by itself, in so many threads: what the gain can be at best."""
        backend = sampler._runner.backends[0]
        seeds = seed_array(range(size))
        inputs = draw_inputs(sampler._model, seeds, labels_of(sampler._model, seeds, None))
        count = 120 // (size * threads)
        start = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(count * threads):
                pool.submit(backend.run, inputs, alone=threads == 1)
        return size * count * threads / (time.perf_counter() - start)

    with Sampler(path, **options) as sampler:
        together(sampler, 5)
        rounds = [(together(sampler, 15), in_turn(sampler, 15)) for _ in range(5)]
        cores = sampler._runner.backends[0].parallel_runs
        bares = [(bare(sampler, 8 // cores, cores), bare(sampler, 1, 1)) for _ in range(6)][1:]
        start = time.perf_counter()
        sampler.sample(1000)
        large = 1000 / (time.perf_counter() - start)
    shared, turns = (float(np.median(column)) for column in zip(*rounds, strict=True))
    best = float(np.median([full / single for full, single in bares]))
    return {
        "shared": shared,
        "in_turn": turns,
        "gain": shared / turns,
        "gain_of_the_bare_backend": best,
        "one_large_caller": large,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    options = {"backend": given.backend, "max_queue": 4096}
    found: dict[str, Any] = {"images_per_s": throughput(given.bundle, options)}
    with Sampler(given.bundle, **options) as sampler:
        found["backend"] = {
            key: sampler.info[key] for key in ("family", "backend", "precision", "threads")
        }
        # Under load much of the memory is images that callers wait for; what stays is a leak.
        soak(sampler, 12 * given.minutes)
        before = at_rest()
        found["soak"] = soak(sampler, 60 * given.minutes)
        found["soak"]["memory_growth_mib"] = at_rest() - before
    load, large = found["soak"]["images_per_s"], found["images_per_s"]["one_large_caller"]
    found["soak"]["share_of_one_large_caller"] = load / large
    text = json.dumps(found, indent=1)
    print(text)
    if given.output:
        given.output.write_text(text + "\n")
    wrong = found["soak"]["outcomes"].get("WRONG", 0)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
