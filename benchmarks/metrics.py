"""Seconds and memory of FID and of precision and recall at the sizes that papers use.

    python benchmarks/metrics.py -o benchmarks/results/metrics-<machine>.json

FID takes 50,000 x 2,048 features in batches through the accumulators, and its distance is compared
with scipy's sqrtm on the same moments, in one run. Each part is a process of its own, so that its
peak memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from road import processor
from scipy import linalg

from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics.precision_recall import precision_recall

NUM_FEATURES = 2048


def features(count: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of 500 rectified features, some of which go together, as Inception's do."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(64, NUM_FEATURES)).astype(np.float32)
    for _ in range(0, count, 500):
        common = rng.normal(size=(500, 64)).astype(np.float32) @ mixing / 16
        own = rng.normal(size=(500, NUM_FEATURES)).astype(np.float32)
        yield np.maximum(common + own + 0.05 * seed, 0)


def fid(count: int) -> dict[str, float]:
    real = Moments.of(features(count, 0))
    made = list(features(count, 1))  # making them is not what is measured
    start = time.perf_counter()
    fake = Moments.of(made)
    accumulated = time.perf_counter()
    value = frechet_distance(real, fake)
    done = time.perf_counter()
    return {
        "fid": value,
        "accumulate_s": accumulated - start,
        "distance_s": done - accumulated,
        "total_s": done - start,
    }


def sqrtm(count: int) -> dict[str, float]:
    real, fake = (Moments.of(features(count, seed)) for seed in (0, 1))
    start = time.perf_counter()
    ours = frechet_distance(real, fake)
    between = time.perf_counter()
    a, b = real.covariance.numpy(), fake.covariance.numpy()
    root = linalg.sqrtm(a @ b).real
    means = float((real.mean - fake.mean).square().sum())
    theirs = means + float(np.trace(a) + np.trace(b) - 2 * np.trace(root))
    done = time.perf_counter()
    return {
        "ours_s": between - start,
        "sqrtm_s": done - between,
        "ratio": (done - between) / (between - start),
        "difference": ours - theirs,
    }


def neighbours(count: int) -> dict[str, float]:
    real, fake = (
        torch.from_numpy(np.concatenate(list(features(count, seed)))).double() for seed in (0, 1)
    )
    start = time.perf_counter()
    precise, recalled = precision_recall(real, fake)
    return {
        "precision": float(precise.double().mean()),
        "recall": float(recalled.double().mean()),
        "total_s": time.perf_counter() - start,
    }


PARTS = {"fid": (fid, 50_000), "sqrtm": (sqrtm, 50_000), "neighbours": (neighbours, 10_000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if options.part:
        run, count = PARTS[options.part]
        found = run(count)
        found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({key: round(value, 6) for key, value in found.items()}))
        return
    record = {
        "device": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **{
            part: json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--part", part],
                    check=True, capture_output=True, text=True,
                ).stdout
            )
            for part in PARTS
        },
    }  # fmt: skip
    text = json.dumps(record, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
