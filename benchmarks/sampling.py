"""Sampler against what one would write by hand: throughput, overhead, latents, cold start.

    python benchmarks/sampling.py [--bundles FOLDER] [-o FILE.json]

Two generators, untrained, their batch norms having seen latents: BigGAN-32 (256 channels, ten
classes) and DCGAN-64. All that is compared is timed in turn, in one process, and the medians are
divided. By hand means: latents ready, one call of the backend with all threads.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from ganexport.graph.tracing import to_onnx
from ganexport.options import ExportOptions
from ganexport.pipeline import export
from ganexport.subjects.rewrites import REWRITES, rewrite
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import of_module
from ganinfer import Sampler, draw_latents
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.errors import GanError
from gantrain.models import biggan, dcgan
from gantrain.training.standing import standing_statistics

BATCH, ROUNDS, ROUNDS_OF_ONE = 64, 7, 200
NETWORKS: dict[str, tuple[Callable[[], Any], int]] = {
    "biggan-32": (lambda: biggan.Generator(32, 3, 10, width=64), 10),
    "dcgan-64": (lambda: dcgan.Generator(64, 3, 0), 0),
}
Run = Callable[[], Any]


def bundle_of(name: str, folder: Path) -> tuple[torch.nn.Module, Path]:
    build, num_classes = NETWORKS[name]
    torch.manual_seed(0)
    network = build()
    standing_statistics(network, num_batches=8)
    spec = Spec(network.z_dim, [str(k) for k in range(num_classes)], family=name)
    path = folder / f"{name}.gan"
    if path.exists():
        return network.eval(), path
    options: dict[str, Any] = {"num_images": 1000, "precisions": ["bf16", "int8"]}
    try:
        export(network, spec, path, ExportOptions(**options))
    except GanError:  # untrained residual networks lose more to int8 than its gate allows
        export(network, spec, path, ExportOptions(**options, min_psnr_db=38.0))
    return network.eval(), path


def timed(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of each, in turn."""
    for run in runs.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(0.02)  # threads of the one before go to sleep
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def by_torch(network: torch.nn.Module, num_classes: int) -> Run:
    z = torch.from_numpy(draw_latents(range(BATCH), network.z_dim))
    y = (torch.arange(BATCH) % num_classes,) if num_classes else ()

    @torch.no_grad()
    def run() -> np.ndarray:
        images = ((network(z, *y).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return images.permute(0, 2, 3, 1).contiguous().numpy()

    return run


def by_plain_onnxruntime(network: torch.nn.Module, num_classes: int) -> Run:
    """The graph as it was traced, in a session as it comes."""
    twin = rewrite(of_module(network, spec_of(network, num_classes)).twin(), list(REWRITES))
    graph = to_onnx(twin, z_dim=network.z_dim, num_classes=num_classes)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feed = {"z": draw_latents(range(BATCH), network.z_dim)}
    if num_classes:
        feed["y"] = np.arange(BATCH) % num_classes
    return lambda: session.run(None, feed)[0]


def spec_of(network: torch.nn.Module, num_classes: int) -> Spec:
    return Spec(network.z_dim, [str(k) for k in range(num_classes)])


def measured(name: str, folder: Path) -> dict[str, Any]:
    network, path = bundle_of(name, folder)
    num_classes = NETWORKS[name][1]
    labels = np.arange(BATCH) % num_classes if num_classes else None
    first = None if labels is None else 0
    runs = {
        "torch eager": by_torch(network, num_classes),
        "onnxruntime, plain graph": by_plain_onnxruntime(network, num_classes),
    }
    samplers = {}
    held = [graph.precision for graph in Bundle(path).manifest.graphs]
    for backend in ("onnxruntime", "openvino"):
        for precision in held:
            key = f"{backend} {precision}"
            try:
                sampler = samplers[key] = Sampler(path, backend=backend, precision=precision)
            except GanError as error:
                print(f"{name}: {key}: {error}", file=sys.stderr)
                continue
            model, bare = sampler._model, sampler._runner.backends[0]
            inputs = draw_inputs(model, range(BATCH), labels)
            runs[f"{key}, by hand"] = lambda bare=bare, inputs=inputs: bare.run(inputs)
            runs[f"{key}, Sampler"] = lambda s=sampler: s.sample(BATCH, labels=labels)
    seconds = timed(runs, ROUNDS)
    base = seconds["torch eager"]
    found: dict[str, Any] = {"images_per_s": {k: BATCH / s for k, s in seconds.items()}}
    found["times_torch_eager"] = {k: base / s for k, s in seconds.items()}
    found["sampler_over_by_hand"] = {
        key: seconds[f"{key}, by hand"] / seconds[f"{key}, Sampler"] for key in samplers
    }
    for name, pause_s in (("added_us_at_batch_1", 0.0), ("added_us_after_20_ms_of_sleep", 0.02)):
        found[name] = {key: added_us(s, first, pause_s) for key, s in samplers.items()}
    found["latents_share_at_batch_64"] = {
        key: share_of_latents(sampler, labels) for key, sampler in samplers.items()
    }
    plain = seconds["onnxruntime, plain graph"]
    fp32 = min(s for k, s in seconds.items() if k.endswith("fp32, Sampler"))
    found["fp32_over_plain_onnxruntime"] = plain / fp32
    for sampler in samplers.values():
        sampler.close()
    return found


def added_us(sampler: Sampler, label: int | None, pause_s: float) -> float:
    """What a call for one image takes less what the backend takes within that call; the median."""
    backend, in_backend, added = sampler._runner.backends[0], [0.0], []
    run = backend.run

    def watched(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        images = run(*args, **options)
        in_backend[0] = time.perf_counter() - start
        return images

    backend.run = watched
    for seed in range(ROUNDS_OF_ONE):
        time.sleep(pause_s)
        start = time.perf_counter()
        sampler.sample(1, seed=seed, labels=label)
        added.append(time.perf_counter() - start - in_backend[0])
    del backend.run
    return 1e6 * statistics.median(added)


def share_of_latents(sampler: Sampler, labels: np.ndarray | None) -> float:
    before, start = sampler.stats, time.perf_counter()
    for _ in range(3):
        sampler.sample(BATCH, labels=labels)
    wall, after = time.perf_counter() - start, sampler.stats
    return (after["latents_s"] - before["latents_s"]) / wall


def latents() -> dict[str, float]:
    """Microseconds a latent of 128 numbers, the best of many."""
    best = {}
    for n in (1, 64, 1024):
        times = []
        for _ in range(3000 // n + 20):
            start = time.perf_counter()
            draw_latents(range(n), 128)
            times.append(time.perf_counter() - start)
        best[f"us_per_latent_at_{n}"] = 1e6 * min(times) / n
    return best


def cold_start(path: Path) -> dict[str, float]:
    """In processes of their own; the median of five."""
    code = (
        "import sys, time; a = time.perf_counter(); import ganinfer; b = time.perf_counter();"
        "s = ganinfer.Sampler(sys.argv[1], backend='onnxruntime'); s.sample(1);"
        "print(b - a, time.perf_counter() - b)"
    )
    rows = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        rows.append([float(part) for part in done.stdout.split()])
    imported, opened = (statistics.median(column) for column in zip(*rows, strict=True))
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {"import_s": imported, "open_and_first_image_s": opened, "bundle_mb": size / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--bundles", type=Path, help="where they are kept for the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.bundles or Path(temporary)
        found: dict[str, Any] = {
            "host": {
                "cpus": len(os.sched_getaffinity(0)),
                "machine": platform.machine(),
                "torch": torch.__version__,
                "onnxruntime": onnxruntime.__version__,
                "bf16": torch.cpu._is_avx512_bf16_supported(),
                "amx": torch.cpu._is_amx_tile_supported(),
            },
            "latents": latents(),
        }
        for name in NETWORKS:
            found[name] = measured(name, folder)
        found["cold_start"] = cold_start(folder / "dcgan-64.gan")
    text = json.dumps(found, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
