"""What processes that open one bundle take of memory, with weights mapped and without (Linux).

    python benchmarks/memory.py digits.gan [--processes 1 3] [--backends onnxruntime openvino]

Each process opens the bundle on the CPU in fp32 and draws 20 times. MiB of one of them, of which
pages that several map count in shares (PSS); "all" is the sum over processes, "open s" from files
that are there. The hash is of the images.
"""

import argparse
import hashlib
import multiprocessing
import os
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from ganinfer import Sampler
from ganinfer.host.mapped import MAP

CALLS = 20


def memory(barrier: Barrier) -> float:
    """MiB of this process, while all others stand still."""
    barrier.wait()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    found = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
    barrier.wait()
    return found


def process(bundle: str, backend: str, barrier: Barrier, results: multiprocessing.Queue) -> None:
    before = memory(barrier)
    began = time.perf_counter()
    options = {"backend": backend, "device": "cpu", "precision": "fp32", "allow_unverified": True}
    with Sampler(bundle, **options) as sampler:
        seconds = time.perf_counter() - began
        opened = memory(barrier) - before
        digest = hashlib.sha256()
        for call in range(CALLS):
            digest.update(sampler.sample(1 + call % 8, seed=call).tobytes())
        results.put((seconds, opened, memory(barrier) - before, digest.hexdigest()[:8]))


def measure(bundle: str, backend: str, count: int) -> list[tuple[float, float, float, str]]:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    workers = [
        context.Process(target=process, args=(bundle, backend, barrier, results))
        for _ in range(count)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--backends", nargs="+", default=["onnxruntime", "openvino"])
    asked = parser.parse_args()
    print("| backend | processes | weights | open s | open MiB | used MiB | all MiB | images |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {"XDG_CACHE_HOME": cache, "GANINFER_MEASURE": "0"}
        for backend in asked.backends:
            measure(asked.bundle, backend, 1)  # makes the files
            for count in asked.processes:
                for weights in ("private", "mapped"):
                    os.environ[MAP] = str(int(weights == "mapped"))
                    seconds, opened, used, images = zip(
                        *measure(asked.bundle, backend, count), strict=True
                    )
                    cells = [f"{max(seconds):.1f}", *(f"{max(m):,.0f}" for m in (opened, used))]
                    cells += [f"{sum(used):,.0f}", " ".join(sorted(set(images)))]
                    print(f"| {backend} | {count} | {weights} |", " | ".join(cells), "|")
            del os.environ[MAP]


if __name__ == "__main__":
    main()
