"""Are the gates right? Networks that are exported rightly, and faults that are planted.

    python benchmarks/gates.py [-o benchmarks/results/gates.md] [--skip-faults]

Clean: twenty untrained networks of many kinds (narrow recipes, importers', odd ones) in four
precisions. Nothing of fp32 may fail, and of the others only what says that the format is too coarse
for the network (PSNR), never that the numbers are wrong. In each cell error / rounding, of which
the limits are multiples, and PSNR.

Planted: sixteen faults in five networks, all in the fp32 graph but for one; which gates find it.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from ganexport.graph import tracing
from ganexport.graph.precision import convert
from ganexport.importers import _stylegan2, stylegan2
from ganexport.proof.overflow import what_overflows
from ganexport.proof.parity import Prover
from ganexport.subjects.rewrites import rewrite
from ganexport.subjects.spec import Spec
from ganexport.subjects.subject import Subject, of_module
from ganinfer.bundle.manifest import GateResult
from ganinfer.drawing.inputs import draw_inputs
from gantrain.game.build import build_generator
from gantrain.game.config import load_config
from gantrain.training.standing import standing_statistics

CONFIGS = Path(__file__).parents[1] / "configs"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
QUALITY = {"PSNR, dB", "PSNR uint8, dB", "worst image uint8, dB"}


class Lambda(nn.Module):
    """A function of parts that are modules."""

    def __init__(self, function: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.parts, self._function = nn.ModuleDict(parts), function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._function(self.parts, *inputs)


def dcgan(
    z_dim: int = 100,
    width: int = 16,
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    act: Callable[[], nn.Module] = nn.ReLU,
    classes: int = 0,
) -> nn.Module:
    layers: list[nn.Module] = []
    widths = [z_dim, 4 * width, 2 * width, width]
    for i in range(3):
        shape = (4, 1, 0) if i == 0 else (4, 2, 1)
        layers += [nn.ConvTranspose2d(widths[i], widths[i + 1], *shape, bias=False)]
        layers += [norm(widths[i + 1]), act()]
    main = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())
    for layer in main:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0, 0.1)
    if classes:
        network: nn.Module = Lambda(
            lambda p, z, y: p["main"]((z * p["embed"](y))[:, :, None, None]),
            main=main,
            embed=nn.Embedding(classes, z_dim),
        )
    else:
        network = Lambda(lambda p, z: p["main"](z[:, :, None, None]), main=main)
    labels = [torch.randint(0, classes, (64,))] if classes else []
    with torch.no_grad():
        for _ in range(8):
            network(torch.randn(64, z_dim), *labels)
    return network


def pixel_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt((x**2).mean(1, keepdim=True) + 1e-8)


def progressive() -> nn.Module:
    def forward(p: nn.ModuleDict, z: Tensor) -> Tensor:
        x = pixel_norm(torch.relu(p["first"](pixel_norm(z)).view(-1, 32, 4, 4)))
        x = pixel_norm(torch.relu(p["second"](functional.interpolate(x, scale_factor=4))))
        return torch.tanh(p["image"](x))

    return Lambda(
        forward,
        first=nn.Linear(32, 512),
        second=nn.Conv2d(32, 32, 3, padding=1),
        image=nn.Conv2d(32, 3, 1),
    )


def fourier() -> nn.Module:
    def forward(p: nn.ModuleDict, z: Tensor) -> Tensor:
        phase = 2 * math.pi * p["frequencies"](z)
        return torch.tanh(p["out"](torch.cat([phase.sin(), phase.cos()], 1))).view(-1, 3, 16, 16)

    frequencies = nn.Linear(16, 64, bias=False)
    nn.init.normal_(frequencies.weight, 0, 8)
    out = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 768))
    return Lambda(forward, frequencies=frequencies, out=out)


def transformer() -> nn.Module:
    def forward(p: nn.ModuleDict, z: Tensor) -> Tensor:
        x = p["second"](p["first"](p["tokens"](z).view(-1, 16, 32)))
        return torch.tanh(functional.pixel_shuffle(p["image"](x).mT.reshape(-1, 192, 4, 4), 8))

    layers = [nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True) for _ in range(2)]
    return Lambda(
        forward,
        tokens=nn.Linear(64, 512),
        first=layers[0],
        second=layers[1],
        image=nn.Linear(32, 192),
    )


def residual() -> nn.Module:
    def block() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1),
            nn.GroupNorm(4, 16),
            nn.SiLU(),
            nn.Conv2d(16, 16, 3, padding=1),
        )

    def forward(p: nn.ModuleDict, z: Tensor) -> Tensor:
        x = p["first"](z).view(-1, 16, 8, 8)
        for name in sorted(n for n in p if n.startswith("block")):
            x = x + p[name](x)
        x = functional.interpolate(x, scale_factor=4, mode="bilinear")
        return torch.tanh(0.3 * p["image"](x))

    blocks = {f"block{n:02}": block() for n in range(16)}
    return Lambda(forward, first=nn.Linear(32, 1024), image=nn.Conv2d(16, 3, 1), **blocks)


def simple(tail: Callable[[Tensor], Tensor], gain: float = 1.0) -> Callable[[], nn.Module]:
    """Two convolutions with what the tail makes of them."""

    def make() -> nn.Module:
        def forward(p: nn.ModuleDict, z: Tensor) -> Tensor:
            x = torch.relu(gain * p["first"](z).view(-1, 16, 4, 4))
            return tail(p["image"](functional.interpolate(p["norm"](x), scale_factor=4)))

        return Lambda(
            forward,
            first=nn.Linear(32, 256),
            norm=nn.InstanceNorm2d(16),
            image=nn.Conv2d(16, 3, 3, padding=1),
        )

    return make


def style() -> Subject:
    plan = _stylegan2.Plan(16, 3, 8, [16, 16], [16, 12, 8], 3)
    with torch.device("meta"):
        names = _stylegan2.Generator(plan, psi=1.0, clamp=256.0).state_dict()
    state = {}
    for name, empty in names.items():
        value = torch.randn(empty.shape)
        if name.endswith("resample_filter"):
            tap = torch.tensor([1.0, 3.0, 3.0, 1.0])
            value = tap[:, None] * tap / 64
        elif name.startswith("mapping.fc"):
            value *= 100
        elif name.endswith("affine.bias"):
            value = 1 + 0.3 * value
        elif name.endswith("torgb.weight"):
            value *= 0.1
        elif name.endswith(("noise_strength", "bias", "w_avg")):
            value *= 0.2
        state[name] = value
    return of_module(*stylegan2.read(state))


def recipe(name: str, *overrides: str) -> Callable[[], Subject]:
    shapes = {"digits": (16, 1, 10), "mnist": (28, 1, 10), "cifar10": (32, 3, 10)}

    def make() -> Subject:
        config = load_config(CONFIGS / f"{name}.toml", overrides)
        size, channels, classes = shapes[name.partition("-")[2]]
        network = build_generator(config, size, channels, classes if config.conditional else 0)
        standing_statistics(network, num_batches=4, truncation=config.train.truncation, seed=0)
        names = [str(k) for k in range(network.num_classes)]
        return of_module(
            network, Spec(network.z_dim, names, network.z_distribution, config.train.truncation)
        )

    return make


def custom(
    make: Callable[[], nn.Module], z_dim: int, classes: int = 0, output_range: str | None = None
) -> Callable[[], Subject]:
    names = [str(k) for k in range(classes)]
    return lambda: of_module(make().eval(), Spec(z_dim, names, output_range=output_range))


NARROW = "model.generator.width=16"
NETWORKS: dict[str, Callable[[], Subject]] = {
    "DCGAN, classes": custom(lambda: dcgan(classes=10), 100, 10),
    "residual, 32 convolutions": custom(residual, 32),
    "transformer": custom(transformer, 64),
    "StyleGAN2, classes, psi": style,
    "DCGAN, instance norm": custom(
        lambda: dcgan(norm=lambda n: nn.InstanceNorm2d(n, affine=True), act=nn.LeakyReLU), 100
    ),
    "DCGAN": custom(dcgan, 100),
    "DCGAN, group norm, ELU": custom(
        lambda: dcgan(norm=lambda n: nn.GroupNorm(4, n), act=nn.ELU), 100
    ),
    "pixel norm behind ReLU": custom(progressive, 32),
    "Fourier features": custom(fourier, 16),
    "sigmoid, 0:1": custom(simple(torch.sigmoid), 32, output_range="0:1"),
    "saturated": custom(simple(lambda x: torch.tanh(8 * x)), 32),
    "zeros": custom(simple(lambda x: torch.tanh(functional.softshrink(x, 0.3))), 32),
    "clamped": custom(simple(lambda x: (2 * x).clamp(-1, 1)), 32),
    "values to 1e4": custom(simple(torch.tanh, gain=1e4), 32),
    "values of 1e-4": custom(simple(torch.tanh, gain=1e-4), 32),
    "dcgan-digits": recipe("dcgan-digits"),
    "gan-mnist": recipe("gan-mnist"),
    "wgan_gp-cifar10, narrow": recipe("wgan_gp-cifar10", NARROW),
    "sagan-cifar10, narrow": recipe("sagan-cifar10", NARROW),
    "biggan-cifar10, narrow": recipe("biggan-cifar10", NARROW),
}
FAULTY = list(NETWORKS)[:5]


class Around(nn.Module):
    """A network with a fault of what goes in or comes out."""

    def __init__(self, network: nn.Module, before: Callable, after: Callable) -> None:
        super().__init__()
        self.network, self._before, self._after = network, before, after

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._after(self.network(*self._before(*inputs)))


def around(
    before: Callable = lambda *inputs: inputs, after: Callable = lambda x: x
) -> Callable[[Subject], bytes]:
    return lambda subject: subject.to_onnx(Around(subject.twin(), before, after))


class Floored(tracing.SamplingGraph):
    """Cuts off where it should round."""

    def forward(self, *inputs: Tensor) -> Tensor:
        scaled = (self.generator(*inputs).clamp(-1, 1) + 1) * 127.5
        return scaled.permute(0, 2, 3, 1).to(torch.uint8)


@contextmanager
def another_tail() -> Iterator[None]:
    right = tracing.SamplingGraph
    tracing.SamplingGraph = Floored
    try:
        yield
    finally:
        tracing.SamplingGraph = right


def floored(subject: Subject) -> bytes:
    with another_tail():
        return subject.to_onnx(subject.twin())


def weights(change: Callable[[np.ndarray], np.ndarray], which: int | None) -> Callable:
    """Of the graph: those of one layer, or of all (None)."""

    def plant(subject: Subject) -> bytes:
        model = onnx.load_from_string(subject.to_onnx(subject.twin()))
        found = [w for w in model.graph.initializer if w.name.endswith("weight")]
        found = [w for w in found if len(w.dims) >= 2]
        for weight in found if which is None else [found[which]]:
            array = numpy_helper.to_array(weight)
            new = numpy_helper.from_array(change(array).astype(array.dtype), weight.name)
            weight.CopyFrom(new)
        return model.SerializeToString()

    return plant


def eight_bits(array: np.ndarray) -> np.ndarray:
    step = np.abs(array).max() / 127
    return np.rint(array / step) * step


def noisy(array: np.ndarray) -> np.ndarray:
    return array * (1 + 0.01 * np.random.default_rng(0).normal(size=array.shape))


def labels(change: Callable[[Tensor, int], Tensor]) -> Callable[[Subject], bytes | None]:
    def plant(subject: Subject) -> bytes | None:
        if not subject.num_classes:
            return None
        k = subject.num_classes
        return around(lambda z, y, *rest: (z, change(y, k), *rest))(subject)

    return plant


def norms(change: Callable[[nn.BatchNorm2d], None]) -> Callable[[Subject], bytes | None]:
    def plant(subject: Subject) -> bytes | None:
        twin = subject.twin()
        found = [m for m in twin.modules() if isinstance(m, nn.BatchNorm2d)]
        for module in found:
            change(module)
        return subject.to_onnx(twin) if found else None

    return plant


def batch_statistics(module: nn.BatchNorm2d) -> None:
    module.running_mean = module.running_var = None
    module.track_running_stats = False


def wrong_mean(subject: Subject) -> bytes | None:
    """Statistics as of another truncation: of w, or of batch norms."""
    twin = subject.twin()
    for name, buffer in twin.named_buffers():
        if name.endswith(("w_avg", "running_var")):
            buffer.mul_(1.05)
    found = any(n.endswith(("w_avg", "running_var")) for n, _ in twin.named_buffers())
    return subject.to_onnx(twin) if found else None


def rare(z: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    """One seed in about two hundred is drawn wrongly."""
    return (torch.where(z[:, :1] > 2.6, -z, z), *rest)


FAULTS: dict[str, Callable[[Subject], bytes | None]] = {
    "cut off, not rounded": floored,
    "labels off by one": labels(lambda y, k: (y + 1) % k),
    "two classes swapped": labels(lambda y, _: torch.where(y < 2, 1 - y, y)),
    "z times 1.005": around(before=lambda z, *rest: (1.005 * z, *rest)),
    "one seed in 200 wrong": around(before=rare),
    "red and blue swapped": around(after=lambda x: x.flip(1)),
    "one channel shifted by a pixel": around(
        after=lambda x: torch.cat([x[:, :1].roll(1, 3), x[:, 1:]], 1)
    ),
    "range [0, 1]": around(after=lambda x: (x + 1) / 2),
    "gamma": around(after=lambda x: x.sign() * x.abs() ** 1.02),
    "images depend on each other": around(
        before=lambda z, *rest: (z - 0.1 * z.mean(0, keepdim=True), *rest)
    ),
    "half overflow": around(after=lambda x: (x * 2.0**20) * 2.0**-20),
    "one layer's weights of 8 bits": weights(eight_bits, which=-1),
    "all weights 1 % off (no EMA)": weights(noisy, which=None),
    "batch norm in training": norms(batch_statistics),
    "epsilon of norms 1e-3": norms(lambda module: setattr(module, "eps", 1e-3)),
    "statistics of another truncation": wrong_mean,
}


def clean(name: str) -> tuple[list[str], int]:
    """A row of the first table, and how many alarms are false."""
    torch.manual_seed(0)
    subject = NETWORKS[name]()
    single = subject.to_onnx(rewrite(subject.twin()))
    prover = Prover(subject, None, num_images=10_000, minutes=3)
    calibration = draw_inputs(
        subject.model,
        range(1 << 34, (1 << 34) + 256),
        np.arange(256) % subject.num_classes if subject.num_classes else None,
    ).feed()
    cells, alarms = [name], 0
    for precision in PRECISIONS:
        keep = what_overflows(subject, single).nodes if precision == "fp16" else ()
        graph = convert(single, precision, keep=keep, calibration=calibration)
        gates = prover.check_graphs({precision: graph})[precision]
        failed = {gate.gate for gate in gates if not gate.passed}
        values = {gate.gate: gate for gate in gates}
        cell = []
        if "error / rounding" in values:
            cell.append(f"{values['error / rounding'].value:.2f}")
        if "PSNR, dB" in values:
            cell.append(f"{values['PSNR, dB'].value:.0f} dB")
        if failed and failed <= QUALITY and precision != "fp32":
            cell.append("too coarse")
        elif failed:
            alarms += 1
            cell.append(f"**{', '.join(sorted(failed))}**")
        cells.append(", ".join(cell))
    return cells, alarms


def found_by(gates: list[GateResult]) -> str:
    failed = [gate.gate for gate in gates if not gate.passed]
    return "found" if failed else "**missed**"


def planted() -> tuple[list[list[str]], int]:
    """The second table, and how many faults were missed."""
    rows: dict[str, list[str]] = {fault: [fault] for fault in FAULTS}
    missed = 0
    for name in FAULTY:
        torch.manual_seed(0)
        subject = NETWORKS[name]()
        prover = Prover(subject, None, num_images=10_000, minutes=3)
        for fault, plant in FAULTS.items():
            graph = plant(subject)
            if graph is None:
                rows[fault].append("-")
                continue
            precision = "fp16" if fault == "half overflow" else "fp32"
            gates = prover.check_graphs({precision: convert(graph, precision)})[precision]
            failed = [gate.gate for gate in gates if not gate.passed]
            missed += not failed
            rows[fault].append(failed[0] if failed else "**missed**")
            print(name, "|", fault, "|", ", ".join(failed), file=sys.stderr, flush=True)
    return list(rows.values()), missed


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--skip-faults", action="store_true")
    options = parser.parse_args()
    start, rows, alarms = time.perf_counter(), [], 0
    for name in NETWORKS:
        row, wrong = clean(name)
        rows.append(row)
        alarms += wrong
        print(" | ".join(row), file=sys.stderr, flush=True)
    text = (
        f"`python {' '.join(sys.argv)}`\n\nClean: error / rounding, PSNR; {alarms} false alarms\n\n"
        f"{table(['network', *PRECISIONS], rows)}\n"
    )
    if not options.skip_faults:
        faults, missed = planted()
        text += (
            f"\nPlanted: the first gate that finds it; {missed} missed\n\n"
            f"{table(['fault', *FAULTY], faults)}\n"
        )
    text += (
        f"\n{(time.perf_counter() - start) / 60:.0f} minutes on {torch.get_num_threads()} cores\n"
    )
    print(text)
    if options.output:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
