"""`Sampler` as it comes against what one would write by hand, network by network.

    python benchmarks/rivals.py RUN | recipe | file.py:function ... [--bundles FOLDER] [-o FILE.md]

A recipe's network is untrained, its batch norms having seen latents. By hand means: latents ready,
all threads, the graph that `torch.onnx.export` makes of the network and its tail of uint8, as each
runtime takes it by default. `Sampler` draws its latents within what is timed. At each batch all are
timed in turn, in a process of the network's own; a figure is the ratio of torch eager's median to
theirs. Before, the backends of the bundle are compared, as a `Sampler` does it in the background.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from gate_networks import recipe
from numpy.typing import NDArray
from road import processor
from torch import Tensor, nn

from ganexport.options import ExportOptions
from ganexport.pipeline import export_subject
from ganexport.subjects.outside import of_factory
from ganexport.subjects.subject import Subject, arguments_of, of_run
from ganinfer import Sampler
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.errors import BackendUnavailable
from ganinfer.files import write_atomic
from ganinfer.scheduler.comparing import MEASURE, compare
from gantrain.runs.checkpoint import load_generator

BATCHES = (1, 8, 64)
ROUNDS = 9
LONG_ENOUGH_S = 0.05  # of calls in a row
Run = Callable[[], Any]


class Pixels(nn.Module):
    """A generator and its tail: uint8 (N, H, W, C)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        images = self.network(*inputs).clamp(-1, 1)
        return ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def subject_of(target: str) -> Subject:
    """Of a run's folder, a recipe, or a function's module, which may give its Spec with it."""
    if (Path(target) / "config.json").exists():
        return of_run(load_generator(Path(target)))
    return of_factory(target, None, None, {}) if ":" in target else recipe(target)()


def bundle_of(subject: Subject, path: Path) -> Path:
    """In all precisions; with layers in float32 where a gate fails, as untrained ones' do."""
    if not path.exists():
        options = ExportOptions(precisions=["bf16", "int8"])
        if left_out := export_subject(subject, path, options).left_out:
            print(f"{path.name}: {[one.why for one in left_out]}", file=sys.stderr)
            export_subject(subject, path, dataclasses.replace(options, min_psnr_db=38.0))
    return path


def runs_by_hand(pixels: nn.Module, given: list[Tensor], graph: Path) -> Iterator[tuple[str, Run]]:
    feed = [value.numpy() for value in given]

    def of_torch(call: Callable[..., Tensor]) -> Run:
        def run() -> NDArray[np.uint8]:
            with torch.inference_mode():
                return call(*given).numpy()

        return run

    yield "torch eager", of_torch(pixels)
    yield "torch.compile", of_torch(torch.compile(pixels))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    inputs = dict(zip(names, feed, strict=True))
    yield "onnxruntime by hand", lambda: session.run(None, inputs)[0]
    compiled = openvino.compile_model(graph, "CPU")
    yield "OpenVINO by hand", lambda: compiled(inputs)[0]


@contextmanager
def samplers(
    bundle: Path, labels: NDArray[np.int64] | None, batch: int
) -> Iterator[dict[str, Run]]:
    """What "auto" picks, and each precision of the bundle by the backend that is picked for it."""
    with Bundle(bundle) as opened:
        held = [graph.precision for graph in opened.manifest.graphs]
    opened = {}
    for precision in ("auto", *held):
        try:
            sampler = Sampler(bundle, precision=precision)
        except BackendUnavailable as error:  # bf16, where the processor has none
            print(f"{bundle.name}: {precision}: {error}", file=sys.stderr)
            continue
        way = f"{sampler.info['backend']} {sampler.info['precision']}"
        opened[f"Sampler {precision}: {way}" if precision == "auto" else f"Sampler: {way}"] = (
            sampler
        )
    try:
        yield {name: lambda s=s: s.sample(batch, labels=labels) for name, s in opened.items()}
    finally:
        for sampler in opened.values():
            sampler.close()


def medians(runs: dict[str, Run]) -> dict[str, float]:
    """Seconds of a call of each, in turn."""
    calls = {}
    for name, run in runs.items():
        run()
        start = time.perf_counter()
        run()
        calls[name] = max(1, round(LONG_ENOUGH_S / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            time.sleep(0.05)  # threads of the one before go to sleep
            run()
            start = time.perf_counter()
            for _ in range(calls[name]):
                run()
            times[name].append((time.perf_counter() - start) / calls[name])
    return {name: statistics.median(values) for name, values in times.items()}


def named(target: str, folder: Path) -> tuple[Subject, str, Path]:
    name = Path(target.partition(":")[2] or target).name
    subject = subject_of(target)
    return subject, name, bundle_of(subject, folder / f"{name}.gan")


def measured(target: str, folder: Path) -> list[str]:
    """A table of one network: a row for each way, a column for each batch."""
    subject, name, bundle = named(target, folder)
    pixels = Pixels(subject.twin()).eval()
    table: dict[str, list[str]] = {}
    for batch in BATCHES:
        labels = np.arange(batch) % subject.num_classes if subject.num_classes else None
        given = arguments_of(draw_inputs(subject.model, range(batch), labels), torch.float32)
        graph = folder / f"{name}-by-hand-{batch}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(pixels, tuple(given), graph, dynamo=True, verbose=False)
        with samplers(bundle, labels, batch) as ours:
            seconds = medians(dict(runs_by_hand(pixels, given, graph)) | ours)
        eager = seconds["torch eager"]
        for way, taken in seconds.items():
            cell = f"{eager / taken:.2f}x" if way != "torch eager" else f"{batch / taken:,.0f}/s"
            table.setdefault(way, []).append(cell)
        torch.compiler.reset()
    heads = [f"## {name}", "", "| | batch " + " | batch ".join(map(str, BATCHES)) + " |"]
    rows = [f"| {way} | {' | '.join(cells)} |" for way, cells in table.items()]
    return [*heads, "|---" * (1 + len(BATCHES)) + "|", *rows, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--bundles", type=Path, help="where they are kept for the next time")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    os.environ[MEASURE] = "0"  # nothing else runs beside what is timed
    shown = " ".join(Path(target).name for target in options.targets)
    threads = torch.get_num_threads()
    lines = [f"`python benchmarks/rivals.py {shown}` on {processor()}, {threads} threads", ""]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.bundles or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for target in options.targets:
            _, _, bundle = named(target, folder)
            with Bundle(bundle) as opened:
                sha256 = opened.sha256
            compare(bundle, sha256)  # counts for processes that begin now
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                found = pool.submit(measured, target, folder).result()
            print("\n".join(found), flush=True)
            lines += found
    if options.output:
        write_atomic(options.output, "\n".join(lines).encode())


if __name__ == "__main__":
    main()
