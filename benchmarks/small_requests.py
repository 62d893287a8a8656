"""What small requests cost: latency, what is added to the backend, callers at once, idle CPU.

    python benchmarks/small_requests.py BUNDLE [--backend openvino] [--rounds 5] [-o FILE.json]
    python benchmarks/small_requests.py BUNDLE --against OTHER_CHECKOUT

Each round is a process of its own; with --against rounds of this checkout and of another one, such
as an earlier version, take turns. The median of the rounds is told. Nothing else may run meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP, CALLS, PAUSE_S, RATE_S = 60, 500, 0.02, 1.5


def median_ms(call: Callable[[int], Any], count: int, pause_s: float = 0.0) -> float:
    times = []
    for n in range(count):
        time.sleep(pause_s)
        start = time.perf_counter()
        call(n)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def figures(path: str, backend: str) -> dict[str, float]:
    """One round, of whatever ganinfer is imported."""
    from ganinfer import Sampler

    options = {"device": "cpu", "backend": backend, "precision": "fp32", "allow_unverified": True}
    with Sampler(path, **options) as sampler:
        label = 0 if sampler.classes else None
        opened = sampler._runner.backends[0]
        run, in_backend = opened.run, [0.0]

        def watched(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            images = run(*args, **options)
            in_backend[0] = time.perf_counter() - start
            return images

        def one(seed: int) -> None:
            sampler.sample(1, seed=seed, labels=label)

        def added(seed: int) -> float:
            start = time.perf_counter()
            one(seed)
            return time.perf_counter() - start - in_backend[0]

        def images_per_s(count: int) -> float:
            start, done = time.perf_counter(), 0
            while time.perf_counter() - start < RATE_S:
                sampler.sample(count, seed=done)
                done += count
            return done / (time.perf_counter() - start)

        def callers(count: int) -> float:
            done, start = [0] * count, time.perf_counter()

            def call(number: int) -> None:
                while time.perf_counter() - start < RATE_S:
                    one(number)
                    done[number] += 1

            threads = [threading.Thread(target=call, args=(n,)) for n in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return sum(done) / (time.perf_counter() - start)

        for seed in range(WARM_UP):
            one(seed)
        opened.run = watched
        found = {"added_us": 1e6 * statistics.median(added(n) for n in range(CALLS))}
        del opened.run
        found["latency_ms"] = median_ms(one, CALLS)
        cpu, start = time.process_time(), time.perf_counter()
        found["latency_after_20_ms_of_sleep_ms"] = median_ms(one, 100, PAUSE_S)
        busy = (time.process_time() - cpu) / (time.perf_counter() - start)
        found["cpu_percent_at_one_each_20_ms"] = 100 * busy
        found["images_per_s_at_8"] = images_per_s(8)
        found["images_per_s_at_64"] = images_per_s(64)
        found["images_per_s_of_8_callers"] = callers(8)
        return found


def a_round(path: str, backend: str, checkout: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, path, "--backend", backend, "--one-round"],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--one-round", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    if given.one_round:
        print(json.dumps(figures(given.bundle, given.backend)))
        return
    checkouts = {"here": Path(__file__).parents[1]}
    if given.against is not None:
        checkouts = {"against": given.against.resolve(), **checkouts}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for _ in range(given.rounds):
        for name, checkout in checkouts.items():
            rounds[name].append(a_round(given.bundle, given.backend, checkout))
    found: dict[str, Any] = {name: medians(own) for name, own in rounds.items()}
    if given.against is not None:
        here, other = found["here"], found["against"]
        found["here_over_against"] = {key: here[key] / other[key] for key in here}
    text = json.dumps({"backend": given.backend, **found}, indent=1)
    print(text)
    if given.output:
        given.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
