"""Are the gates right? Networks that are exported rightly, and faults that are planted.

    python benchmarks/gates.py [-o benchmarks/results/gates.md] [--skip-faults]

Clean: twenty untrained networks of many kinds (narrow recipes, importers', odd ones) in four
precisions. Nothing of fp32 may fail, and of the others only what says that the format is too coarse
for the network (PSNR; of bf16 and int8 also the paired distance, where untrained networks make
images that hardly differ), never that the numbers are wrong. In each cell error / rounding, of
which the limits are multiples, and PSNR. A network of two layers has none that int8 touches.

Planted: sixteen faults in five networks, all in the fp32 graph but for one; which gates find it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from gate_networks import NETWORKS
from onnx import numpy_helper
from torch import Tensor, nn

from ganexport.graph.precision import convert
from ganexport.proof.overflow import what_overflows
from ganexport.proof.parity import Prover
from ganexport.subjects.rewrites import rewrite
from ganexport.subjects.subject import Subject
from ganinfer.drawing.inputs import draw_inputs

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
QUALITY = {"PSNR, dB", "PSNR uint8, dB", "worst image uint8, dB"}
SAME = 1.5  # of error / rounding: a network that normalises z takes out what scales it
SETS = {"paired FID / floor", "paired, worst class"}  # these say it in bf16 and int8


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


def floored(subject: Subject) -> bytes:
    """Cuts off where it should round."""
    model = onnx.load_from_string(subject.to_onnx(subject.twin()))
    (rounding,) = (node for node in model.graph.node if node.op_type == "Round")
    rounding.op_type = "Floor"
    return model.SerializeToString()


def weights(change: Callable[[np.ndarray], np.ndarray], which: int | None) -> Callable:
    """Of the graph: those of one layer, or of all (None)."""

    def plant(subject: Subject) -> bytes:
        model = onnx.load_from_string(subject.to_onnx(subject.twin()))
        found = [w for w in model.graph.initializer if len(w.dims) >= 2 and w.data_type == 1]
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
    "half overflow": around(after=lambda x: x * 3e4 * 30.0 / 30.0 / 3e4),
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
        ((_, gates),) = prover.check_graphs({precision: graph})
        failed = {gate.gate for gate in gates if not gate.passed}
        values = {gate.gate: gate for gate in gates}
        cell = []
        if "error / rounding" in values:
            cell.append(f"{values['error / rounding'].value:.2f}")
        if "PSNR, dB" in values:
            cell.append(f"{values['PSNR, dB'].value:.0f} dB")
        coarse = {"fp32": set(), "fp16": QUALITY}.get(precision, QUALITY | SETS)
        if failed and failed <= coarse:
            cell.append("too coarse" if failed & QUALITY else "too coarse for the set")
        elif failed:
            alarms += 1
            cell.append(f"**{', '.join(sorted(failed))}**")
        cells.append(", ".join(cell))
    return cells, alarms


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
            ((_, gates),) = prover.check_graphs({precision: convert(graph, precision)})
            failed = [gate.gate for gate in gates if not gate.passed]
            error = next(gate.value for gate in gates if gate.gate == "error / rounding")
            same = not failed and error < SAME
            missed += not failed and not same
            rows[fault].append(failed[0] if failed else "same images" if same else "**missed**")
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
