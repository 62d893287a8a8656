"""What comparing backends in the background costs the requests of a program's first seconds.

    python benchmarks/first_seconds.py BUNDLE [--rounds 3]

An image is asked for each 10 ms, by processes that never saw the bundle and, in turn, may compare
or may not (GANINFER_MEASURE=0). Told are times of requests from 2 s on, when comparing begins.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from ganinfer import Sampler
from ganinfer.scheduler.comparing import MEASURE

BEGINS_S, ENDS_S, PAUSE_S = 2.0, 14.0, 0.01
PERCENTILES = (50, 90, 99)


def times_ms(path: str) -> list[float]:
    """Percentiles of one program."""
    with Sampler(path) as sampler:
        label = 0 if sampler.classes else None
        opened, times = time.perf_counter(), []
        while (begun := time.perf_counter()) < opened + ENDS_S:
            sampler.sample(1, labels=label)
            if begun > opened + BEGINS_S:
                times.append(time.perf_counter() - begun)
            time.sleep(PAUSE_S)
    found: list[float] = (1000 * np.percentile(times, PERCENTILES)).tolist()
    return found


def program(path: str, measure: str) -> list[float]:
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, __file__, path, "--one"],
            env=os.environ | {MEASURE: measure, "XDG_CACHE_HOME": cache},
            stdout=subprocess.PIPE,
            check=True,
        )
    found: list[float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(times_ms(given.bundle)))
        return
    rounds = [[program(given.bundle, measure) for measure in "01"] for _ in range(given.rounds)]
    for way, found in zip(("alone", "beside a comparison"), zip(*rounds, strict=True), strict=True):
        medians = (statistics.median(values) for values in zip(*found, strict=True))
        told = zip(PERCENTILES, medians, strict=True)
        print(f"{way}: " + ", ".join(f"p{percent} {value:.2f} ms" for percent, value in told))


if __name__ == "__main__":
    main()
