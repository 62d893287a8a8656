"""Sampler under load: threads, tasks, cancellations, deadlines, faults, forks and reloads.

    python benchmarks/soak.py BUNDLE [OTHER] [--minutes 5] [--backend openvino] [-o FILE.json]

Thirty-two threads and two hundred asyncio tasks ask for 1 to 500 images with labels and
truncations of their own; one request in twenty is cancelled, one in twenty has a deadline of 20 to
500 ms, one batch in five hundred fails. Every five seconds a process is forked off that samples and
ends by itself; and, with OTHER, a bundle of another training of the same recipe, that and BUNDLE
take turns at the place that a watching Sampler serves from. Every answer is compared, bit for bit,
with what the same request gives alone. Then throughput: eight callers of small requests who share
a Sampler against eight who take turns, and the load's images/s against one large caller.
"""

import argparse
import asyncio
import atexit
import ctypes
import functools
import gc
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.tree import write_tree
from ganinfer.drawing.inputs import draw_inputs, labels_of
from ganinfer.drawing.latents import seed_array
from ganinfer.errors import BackendUnavailable, DeadlineExceeded, QueueFull

NUM_THREADS, NUM_TASKS, NUM_KINDS = 32, 200, 60
EVERY_S = 5.0  # a fork, and a reload


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

    def __init__(self, backend: Any, share: float, seed: int = 0) -> None:
        self._run, self._share, self._rng = backend.run, share, random.Random(seed)
        self.failed, self._process = 0, os.getpid()
        backend.run = self.run

    def run(self, inputs: Any, **options: Any) -> Any:
        if os.getpid() == self._process and self._rng.random() < self._share:
            self.failed += 1
            raise BackendUnavailable("injected")
        return self._run(inputs, **options)

    def end(self) -> None:
        """It fails no more."""
        self._share = 0.0


class Swapped:
    """Two bundles that take turns at one place."""

    def __init__(self, place: Path, bundles: Sequence[Path]) -> None:
        self.place, self._turn = place, 0
        self._bundles: list[tuple[str, dict[str, bytes]]] = []
        for path in bundles:
            with Bundle(path) as bundle:
                self._bundles.append((bundle.sha256, bundle.tree()))
        self.swap()

    def swap(self) -> str:
        """Put the other one there; its sha256."""
        self._turn += 1
        sha256, tree = self._bundles[self._turn % len(self._bundles)]
        write_tree(self.place, tree, single_file=False)
        return sha256


def soak(
    sampler: Sampler,
    seconds: float,
    *,
    num_threads: int = NUM_THREADS,
    num_tasks: int = NUM_TASKS,
    fault_share: float = 1 / 500,
    most_steps: int = 0,
    swapped: Swapped | None = None,
    forks: bool = False,
) -> dict[str, Any]:
    """The load. most_steps: of uint8, that an answer may differ, as a GPU's batches do."""
    asked = kinds(sampler)
    rights = [[sampler.sample(**one) for one in asked]]
    if swapped is not None:
        other = swapped.swap()
        sampler.reload()
        assert sampler.sha256 == other
        rights.append([sampler.sample(**one) for one in asked])
    flaky = [Flaky(sampler._runner.backends[0], fault_share)]
    outcomes: Counter[str] = Counter()
    late_ms: list[float] = []
    images = 0
    end, lock = time.monotonic() + seconds, threading.Lock()
    peak = 0.0

    def record(outcome: str, count: int = 0) -> None:
        nonlocal images
        with lock:
            outcomes[outcome] += 1
            images += count

    def is_right(kind: int, answer: np.ndarray) -> bool:
        return any(
            answer.shape == right[kind].shape
            and np.abs(answer.astype(np.int16) - right[kind]).max() <= most_steps
            for right in rights
        )

    def judge(kind: int, answer: np.ndarray) -> None:
        record("right" if is_right(kind, answer) else "WRONG", len(answer))

    def told(future: Future[Any], deadline: float) -> None:
        """How long after its deadline a request was told that it is late."""
        late = 1000 * (time.monotonic() - deadline)
        if not future.cancelled() and isinstance(future.exception(), DeadlineExceeded):
            late_ms.append(late)

    def caller(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < end:
            kind, chance = rng.randrange(len(asked)), rng.random()
            timeout_s = rng.uniform(0.02, 0.5) if 0.05 < chance < 0.1 else None
            deadline = time.monotonic() + (timeout_s or 0.0)
            try:
                future = sampler.submit(**asked[kind], timeout_s=timeout_s)
                if timeout_s is not None:
                    future.add_done_callback(functools.partial(told, deadline=deadline))
                if chance < 0.05 and future.cancel():
                    record("cancelled")
                    continue
                judge(kind, future.result(120))
            except BackendUnavailable:
                record("failed as injected")
            except QueueFull:
                record("queue full")
            except DeadlineExceeded:
                record("late")

    async def task(number: int) -> None:
        rng = random.Random(1000 + number)
        while time.monotonic() < end:
            kind, chance = rng.randrange(len(asked)), rng.random()
            timeout_s = rng.uniform(0.02, 0.5) if 0.05 < chance < 0.1 else None
            waiting = asyncio.ensure_future(sampler.asample(**asked[kind], timeout_s=timeout_s))
            if chance < 0.05:
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
            except DeadlineExceeded:
                record("late")

    async def tasks() -> None:
        await asyncio.gather(*(task(n) for n in range(num_tasks)))

    def watch() -> None:
        nonlocal peak
        while time.monotonic() < end:
            peak = max(peak, resident_mib())
            time.sleep(1)

    def reload() -> None:
        assert swapped is not None
        while time.monotonic() + EVERY_S < end:
            soon = time.monotonic() + EVERY_S
            other = swapped.swap()
            while sampler.sha256 != other and time.monotonic() < soon:
                time.sleep(0.01)
            record("reloaded" if sampler.sha256 == other else "NOT RELOADED")
            flaky.append(Flaky(sampler._runner.backends[0], fault_share, seed=len(flaky)))
            time.sleep(max(0.0, soon - time.monotonic()))

    def fork() -> None:
        """A process of its own that samples, and ends; from the main thread, as servers do."""
        child = os.fork()
        if child == 0:
            sys.exit(0 if is_right(1, sampler.sample(**asked[1])) else 3)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        record("forked" if status == 0 else "A FORK FAILED")

    threads = [threading.Thread(target=caller, args=(n,)) for n in range(num_threads)]
    threads += [
        threading.Thread(target=lambda: asyncio.run(tasks())),
        threading.Thread(target=watch),
    ]
    if swapped is not None:
        threads.append(threading.Thread(target=reload))
    start = time.monotonic()
    for thread in threads:
        thread.start()
    while forks and time.monotonic() + EVERY_S < end:
        time.sleep(EVERY_S)
        fork()
    for thread in threads:
        thread.join()
    wall = time.monotonic() - start
    flaky[-1].end()
    return {
        "seconds": wall,
        "outcomes": dict(outcomes),
        "injected": sum(one.failed for one in flaky),
        "answered_per_s": images / wall,
        "late_by_ms": {
            "count": len(late_ms),
            **{f"p{p}": float(np.percentile(late_ms or [0.0], p)) for p in (50, 99, 100)},
        },
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


def clear(folder: Path, process: int) -> None:
    """At the end of a process; the end of one that was forked off clears nothing."""
    if os.getpid() == process:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("other", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    options = {"backend": given.backend, "max_queue": 4096}
    found: dict[str, Any] = {"images_per_s": throughput(given.bundle, options)}
    folder = Path(tempfile.mkdtemp())
    atexit.register(clear, folder, os.getpid())
    swapped = None
    if given.other is not None:
        swapped = Swapped(folder / "x.gan", [given.bundle, given.other])
    place = given.bundle if swapped is None else swapped.place
    with Sampler(place, watch=swapped is not None, **options) as sampler:
        found["backend"] = {
            key: sampler.info[key] for key in ("family", "backend", "precision", "threads")
        }
        load: dict[str, Any] = {"swapped": swapped, "forks": hasattr(os, "fork")}
        # Under load much of the memory is images that callers wait for; what stays is a leak.
        soak(sampler, 12 * given.minutes, **load)
        before = at_rest()
        found["soak"] = soak(sampler, 60 * given.minutes, **load)
        found["soak"]["memory_growth_mib"] = at_rest() - before
    answered, large = found["soak"]["answered_per_s"], found["images_per_s"]["one_large_caller"]
    found["soak"]["share_of_one_large_caller"] = answered / large
    text = json.dumps(found, indent=1)
    print(text)
    if given.output:
        given.output.write_text(text + "\n")
    wrong = [outcome for outcome in found["soak"]["outcomes"] if outcome.upper() == outcome]
    raise SystemExit(f"soak: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
