"""How fast two networks sample: seeds in, uint8 pixels on the host out, batch by batch.

TF32 is off but in "torch eager TF32", as torch comes. Shares of the machine's rate are the page's.
"""

import dataclasses
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from ganinfer import Sampler, draw_latents
from ganinfer.bundle.archive import Bundle
from ganinfer.errors import BackendUnavailable
from gpu_day.day import Day, Skip, Values, check
from gpu_day.given import NETWORKS, bundle, network_of

Draw = Callable[[int], object]

BATCHES, CPU_BATCHES = (1, 16, 64, 256), (1, 16)
BACKENDS = (
    *(("onnxruntime", "fp32"), ("onnxruntime", "fp16")),
    *(("tensorrt", "fp32"), ("tensorrt", "fp16"), ("onnxruntime_tensorrt", "fp16")),
)
TYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def run(day: Day) -> None:
    for precision in TYPES if day.on_card else ("fp32", "bf16"):
        day.row(f"rate of matrices, {precision}", partial(matrix_rate, day, precision))
    for name in NETWORKS:
        day.row(f"{name}: bundle", partial(bundle_facts, day, name), limit_s=120)
    half = "fp16" if day.on_card else "bf16"
    for name in NETWORKS:
        for backend, precision in BACKENDS:
            work = partial(by_sampler, day, name, backend, precision)
            day.row(f"{name}: {backend} {precision}", work, limit_s=120)
        for way, work in (
            ("torch eager fp32", partial(by_torch, day, name, "fp32")),
            ("torch eager TF32", partial(by_torch, day, name, "tf32")),
            (f"torch channels_last {half}", partial(by_torch, day, name, half)),
            (f"CUDA graphs by hand {half}", partial(by_graphs, day, name)),
        ):
            day.row(f"{name}: {way}", work)
    for name in NETWORKS:  # last: to compile takes longest
        work = partial(by_compiled, day, name, half)
        day.row(f"{name}: torch.compile {half}", work, limit_s=150)


def matrix_rate(day: Day, precision: str) -> Values:
    """TFLOP/s of a large product, the median of ten."""
    size = 8192 if day.on_card else 1024
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    a, b = (torch.randn(size, size, device=day.device).to(TYPES[precision]) for _ in range(2))
    times = []
    for _ in range(13):
        synchronize(day)
        start = time.perf_counter()
        a @ b
        synchronize(day)
        times.append(time.perf_counter() - start)
    torch.backends.cuda.matmul.allow_tf32 = False
    return {"tflops": 2 * size**3 / statistics.median(times[3:]) / 1e12, "size": size}


def synchronize(day: Day) -> None:
    if day.on_card:
        torch.cuda.synchronize()


def bundle_facts(day: Day, name: str) -> Values:
    with Bundle(bundle(day, name)) as opened:
        manifest = opened.manifest
    engines = [f"{e.product} {e.version} {e.precision} {e.target}" for e in manifest.engines]
    return {
        "macs": manifest.model.macs,
        "precisions": ", ".join(graph.precision for graph in manifest.graphs),
        "engines": ", ".join(engines) or "none",
    }


def by_sampler(day: Day, name: str, backend: str, precision: str) -> Values:
    try:
        opened = Sampler(
            bundle(day, name),
            backend=backend,
            device=day.device,
            precision=precision,
            batch_size=max(BATCHES),
            allow_unverified=True,
        )
    except BackendUnavailable as error:
        raise Skip(str(error)) from None
    with opened as sampler:
        values = table(day, sampler.sample) | {
            "steps_from_torch": steps_from_torch(day, name, sampler)
        }
        return values | {"cuda_graphs": sampler.info.get("cuda_graphs", "none")}


def steps_from_torch(day: Day, name: str, sampler: Sampler) -> int:
    """The largest difference in uint8 to torch in float32 on the CPU, of 16 images."""
    num_classes = NETWORKS[name][1]
    on_cpu = dataclasses.replace(day, device="cpu")
    expected = draw(on_cpu, network_of(day, name), num_classes, 16)
    labels = np.arange(16) % num_classes if num_classes else None
    return int(np.abs(sampler.sample(16, labels=labels).astype(int) - expected).max())


def by_torch(day: Day, name: str, precision: str) -> Values:
    if precision == "tf32" and not day.on_card:
        raise Skip("needs a GPU: TF32")
    network = on_device(day, name, precision)
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        return table(day, partial(draw, day, network, NETWORKS[name][1]))
    finally:
        torch.backends.cudnn.allow_tf32 = False


def by_compiled(day: Day, name: str, precision: str) -> Values:
    if not day.on_card and (name != "dcgan-64" or not shutil.which("g++")):
        raise Skip("on a CPU only dcgan-64 is compiled, where there is a C++ compiler")
    network = torch.compile(on_device(day, name, precision), dynamic=True)
    batches = BATCHES if day.on_card else CPU_BATCHES[1:]
    return table(day, partial(draw, day, network, NETWORKS[name][1]), batches)


def on_device(day: Day, name: str, precision: str) -> torch.nn.Module:
    network = network_of(day, name).to(day.device, TYPES[precision])
    if precision in ("fp16", "bf16"):
        network.to(memory_format=torch.channels_last)
    return network


def inputs_of(day: Day, network: torch.nn.Module, num_classes: int, n: int) -> list[torch.Tensor]:
    """What n seeds give the network, in its precision, on the device."""
    z = torch.from_numpy(draw_latents(range(n), network.z_dim))
    y = [torch.arange(n) % num_classes] if num_classes else []
    dtype = next(network.parameters()).dtype
    return [part.to(day.device) for part in (z.to(dtype), *y)]


def pixels(images: torch.Tensor) -> torch.Tensor:
    images = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return images.permute(0, 2, 3, 1).contiguous()


@torch.no_grad()
def draw(day: Day, network: torch.nn.Module, num_classes: int, n: int) -> np.ndarray:
    return pixels(network(*inputs_of(day, network, num_classes, n))).cpu().numpy()


def by_graphs(day: Day, name: str) -> Values:
    """The whole network as one captured graph for each batch size."""
    if not day.on_card:
        raise Skip("needs a GPU: CUDA graphs")
    network, num_classes = on_device(day, name, "fp16"), NETWORKS[name][1]
    graphs: dict[int, tuple[torch.cuda.CUDAGraph, list[torch.Tensor], torch.Tensor]] = {}

    @torch.no_grad()
    def replayed(n: int) -> np.ndarray:
        fresh = inputs_of(day, network, num_classes, n)
        if n not in graphs:
            aside = torch.cuda.Stream()  # warm-up, as torch's notes on graphs ask for
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(3):
                    network(*fresh)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                images = pixels(network(*fresh))
            graphs[n] = graph, fresh, images
        graph, inputs, images = graphs[n]
        for place, part in zip(inputs, fresh, strict=True):
            place.copy_(part)
        graph.replay()
        return images.cpu().numpy()

    values = table(day, replayed)
    steps = np.abs(replayed(16).astype(int) - draw(day, network, num_classes, 16)).max()
    return check(steps <= 1, found=f"{steps} steps from eager", allowed="<= 1", **values)


def table(day: Day, draw: Draw, batches: tuple[int, ...] = ()) -> Values:
    """Latency and images/s by batch."""
    batches = batches or (BATCHES if day.on_card else CPU_BATCHES)
    return {"batches": {n: latencies(draw, n, 1.0 if day.on_card else 0.3) for n in batches}}


def latencies(draw: Draw, n: int, seconds: float) -> Values:
    for _ in range(3):
        draw(n)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (time.perf_counter() < end and len(times) < 3000) or len(times) < 10:
        start = time.perf_counter()
        draw(n)
        times.append(time.perf_counter() - start)
    p50, p95, p99 = np.percentile(np.array(times) * 1000, [50, 95, 99])
    return {
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "images_per_s": 1000 * n / p50,
        "calls": len(times),
    }
