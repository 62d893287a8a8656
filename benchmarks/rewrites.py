"""What each rewrite of the export is worth: images/s without it and with it, by backend.

    python benchmarks/rewrites.py [-o benchmarks/results/rewrites-<machine>.md]
    python benchmarks/rewrites.py --subpixel [-o benchmarks/results/subpixel-<machine>.md]
    python benchmarks/rewrites.py --layers [--batch-size 16]
        [-o benchmarks/results/subpixel-layers-<machine>.md]

Rewrites of the network: an untrained BigGAN-32 of 256 channels without each, and with all, batch
32, in float32. --subpixel: what the export makes of transposed convolutions, in every precision
that the backend computes in here: an untrained DCGAN-64, a DCGAN-16 as of digits, and two layers of
other kernels. --layers: each form of each transposed convolution of DCGANs, and of the last
convolution of a BigGAN-32 and of ResNets, the other layers as they are, in float32.
These two on one core, the fastest of 7 calls or, of batches smaller than 16, more, in processor
time, of which the neighbours on a shared machine take none. Backends: onnxruntime and OpenVINO on
the CPU; rounds of all variants alternate in one process.
"""

import argparse
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from road import processor
from torch import nn

from ganexport.graph.macs import Shape
from ganexport.graph.narrow import Narrow
from ganexport.graph.phases import Made
from ganexport.graph.precision import convert
from ganexport.graph.subpixel import Form, Layer, replace, to_subpixel
from ganexport.graph.tracing import to_onnx
from ganexport.subjects.rewrites import REWRITES, rewrite
from ganinfer.backends._base import Backend
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.backends.openvino import OpenVINOBackend, capabilities_here, new_core
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import BackendUnavailable
from ganinfer.host.limits import usable_cpus
from gantrain.models import biggan, dcgan, resnet
from gantrain.training.standing import standing_statistics

BATCH, ROUNDS, NUM_CLASSES = 32, 7, 10
LEAST_IMAGES = 112  # that one core draws in each form
VARIANTS = {"none": list(REWRITES), **{f"all but {n}": [n] for n in REWRITES}, "all": []}
# kernel, stride, padding, output padding of layers that are measured alone
KERNELS = {"5/2": (5, 2, 2, 1), "3/2": (3, 2, 1, 1), "2/2": (2, 2, 0, 0)}


def as_product(layer: Layer, size: Shape, _: Sequence[onnx.NodeProto]) -> Made | None:
    if isinstance(layer, Narrow) or not layer.is_product(size):
        return None
    return layer.product()


def one_convolution(layer: Layer, size: Shape, after: Sequence[onnx.NodeProto]) -> Made | None:
    if isinstance(layer, Narrow):
        return layer.convolution(size, after)
    return None if layer.is_product(size) else layer.convolution(after)


def one_a_phase(layer: Layer, size: Shape, after: Sequence[onnx.NodeProto]) -> Made | None:
    if isinstance(layer, Narrow) or layer.is_product(size):
        return None
    return layer.convolutions(after)


FORMS: dict[str, Form] = {
    "a product": as_product,
    "one convolution": one_convolution,
    "one a phase": one_a_phase,
}

Run = Callable[[], np.ndarray]
Opener = Callable[[bytes, str], Backend]


class Layers(nn.Module):
    """z -> a map of 128 channels -> two transposed convolutions of one kernel -> images."""

    z_dim = 64

    def __init__(self, kernel: int, stride: int, padding: int, added: int) -> None:
        super().__init__()
        self.start = nn.ConvTranspose2d(self.z_dim, 128, 16)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, kernel, stride, padding, added)
            for wide, narrow in ((128, 64), (64, 32))
        )
        self.to_image = nn.Conv2d(32, 3, 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.start(z[:, :, None, None]))
        for up in self.ups:
            x = torch.relu(up(x))
        return torch.tanh(self.to_image(x))


def backends() -> dict[str, tuple[list[str], Opener]]:
    """By name the precisions that it computes in here, and what opens a graph."""
    found: dict[str, tuple[list[str], Opener]] = {
        "onnxruntime": (["fp32", "int8"], lambda graph, p: OnnxRuntimeBackend(graph, "cpu", p))
    }
    try:
        half = ["bf16"] if "BF16" in capabilities_here() else []
        precisions = ["fp32", *half, "int8"]
        found["OpenVINO"] = precisions, lambda graph, p: OpenVINOBackend(graph, p, new_core())
    except BackendUnavailable as error:
        print(error, file=sys.stderr)
    return found


def seconds(
    runs: dict[str, Run], clock: Callable[[], float], rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Of each, in turn; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if number:
                times[name].append(clock() - start)
    return times


def best_of(runs: dict[str, Run], batch_size: int) -> dict[str, float]:
    """Of each the fastest call, in seconds of one core."""
    rounds = max(ROUNDS, LEAST_IMAGES // batch_size)
    return {name: min(t) for name, t in seconds(runs, time.process_time, rounds).items()}


def of_network() -> Iterator[list[str]]:
    """Rows of the rewrites of a network."""
    graphs = {}
    for name, without in VARIANTS.items():
        torch.manual_seed(0)
        network = biggan.Generator(32, 3, NUM_CLASSES, width=64)
        standing_statistics(network, num_batches=2, truncation=None, seed=0)
        changed = rewrite(network.eval(), without)
        graphs[name] = to_onnx(changed, z_dim=network.z_dim, num_classes=NUM_CLASSES)
    inputs = Inputs(draw_latents(range(BATCH), network.z_dim), np.arange(BATCH) % NUM_CLASSES)
    yield ["backend", *VARIANTS]
    for backend, (_, opened) in backends().items():
        runs = {name: run_of(opened(graph, "fp32"), inputs) for name, graph in graphs.items()}
        images = [run().astype(int) for run in runs.values()]
        assert max(np.abs(one - images[0]).max() for one in images) <= 1
        found = {name: statistics.median(t) for name, t in seconds(runs, time.perf_counter).items()}
        yield [backend, *(f"{BATCH / s:.1f}/s ({found['none'] / s:.2f}x)" for s in found.values())]


def of_transposed(batch_size: int) -> Iterator[list[str]]:
    """Rows of sub-pixel convolutions."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    networks: dict[str, nn.Module] = {
        "DCGAN-64, 4/2": dcgan.Generator(64, 3, 0),
        "DCGAN-16, 4/2": dcgan.Generator(16, 1, 0, z_dim=32, width=32),
        **{f"two layers, {name}": Layers(*options) for name, options in KERNELS.items()},
    }
    yield ["network", "backend", "precision", "as it is", "sub-pixel"]
    for name, network in networks.items():
        if isinstance(network, dcgan.Generator):
            standing_statistics(network, num_batches=2, truncation=None, seed=0)
        exact = to_onnx(rewrite(network.eval()), z_dim=network.z_dim, num_classes=0)
        latents = draw_latents(range(batch_size), network.z_dim)
        for backend, (precisions, opened) in backends().items():
            for p in precisions:
                graphs = {"as it is": exact, "sub-pixel": to_subpixel(exact, p)}
                variants = {
                    form: convert(graph, p, calibration={"z": latents})
                    for form, graph in graphs.items()
                }
                runs = {
                    form: run_of(opened(graph, p), Inputs(latents))
                    for form, graph in variants.items()
                }
                before, after = best_of(runs, batch_size).values()
                rates = [f"{batch_size / s:.0f}/s" for s in (before, after)]
                yield [name, backend, p, rates[0], f"{rates[1]} ({before / after:.2f}x)"]


def of_layers(batch_size: int) -> Iterator[list[str]]:
    """Rows of each layer that has other forms: the network's time with it in each of them."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    networks: dict[str, Callable[[], Any]] = {
        **{
            f"DCGAN-{size}": functools.partial(
                dcgan.Generator, size, 3, 0, z_dim=64, width=32 if size == 16 else 64
            )
            for size in (16, 32, 64, 128)
        },
        **{
            f"ResNet-{size}": functools.partial(resnet.Generator, size, 3, 0, width=64)
            for size in (32, 64, 128)
        },
        "BigGAN-32": functools.partial(biggan.Generator, 32, 3, 0, width=64),
        "BigGAN-32, grey": functools.partial(biggan.Generator, 32, 1, 0, width=64),
    }
    yield ["network", "channels", "map", "backend", "as it is", *FORMS]
    for name, make in networks.items():
        network = make()
        standing_statistics(network, num_batches=2, truncation=None, seed=0)
        exact = to_onnx(rewrite(network.eval()), z_dim=network.z_dim, num_classes=0)
        inputs = Inputs(draw_latents(range(batch_size), network.z_dim))
        for layer, size in layers_of(exact):
            graphs = {"as it is": exact}
            for form, take in FORMS.items():
                graphs[form] = replace(exact, only(layer.node.name, take))
            if len(set(graphs.values())) == 1:
                continue  # it has no such forms
            channels = f"{layer.num_inputs} to {layer.num_channels}"
            for backend, (_, opened) in backends().items():
                runs = {form: run_of(opened(g, "fp32"), inputs) for form, g in graphs.items()}
                best = best_of(runs, batch_size)
                before = best["as it is"]
                ratios = [f"{before / best[form]:.2f}x" for form in FORMS]
                place = [name, channels, f"{size[0]}x{size[1]}", backend]
                yield [*place, f"{batch_size / before:.0f}/s", *ratios]


def layers_of(graph: bytes) -> list[tuple[Layer, Shape]]:
    """Those that may have other forms, each with height and width of its input."""
    found: list[tuple[Layer, Shape]] = []
    replace(graph, lambda layer, size, _: found.append((layer, size)))  # type: ignore[func-returns-value]
    return found


def only(name: str, make: Form) -> Form:
    """A form of one layer alone."""
    return lambda layer, size, after: make(layer, size, after) if layer.node.name == name else None


def run_of(backend: Backend, inputs: Inputs) -> Run:
    return lambda: backend.run(inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--subpixel", action="store_true")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    torch.manual_seed(0)
    rows = []
    if options.layers or options.subpixel:
        table = (of_layers if options.layers else of_transposed)(options.batch_size)
    else:
        table = of_network()
    for row in table:
        print(" | ".join(row), file=sys.stderr, flush=True)
        rows.append(row)
    rows.insert(1, ["---"] * len(rows[0]))
    text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    print(text)
    if options.output:
        command = f"`python {' '.join(sys.argv)}` on {processor()}, cores: {usable_cpus()}"
        options.output.write_text(f"{command}\n\n{text}")


if __name__ == "__main__":
    main()
