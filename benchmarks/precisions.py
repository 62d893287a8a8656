"""Every recipe's and importer's network in every precision, and as a portable TensorRT-RTX engine.

    python benchmarks/precisions.py [-o benchmarks/results/precisions.md] [name ...]

The generators are untrained, a recipe's batch norms have seen latents: what is shown is what a
precision does to the arithmetic; fp16 and bf16 are emulated. The importers' are the small ones of
their tests. error: over what the network's own rounding foretells. dB: PSNR before rounding, peak
2. paired: distance to torch's images over the sampling floor. fails: gates of the export; it then
leaves the precision out, or keeps layers in float32 by --auto-precision. A dash: the gates before
it fail, or the precision has none such. A refusal is told in words.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ganexport.engines.tensorrt import build_engine
from ganexport.graph.large import file_bytes
from ganexport.graph.precision import PRECISIONS, convert
from ganexport.proof.overflow import what_overflows
from ganexport.proof.parity import Prover
from ganexport.subjects.rewrites import rewrite
from ganexport.subjects.subject import Subject
from ganinfer.bundle.manifest import GateResult
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.errors import GanError
from ganinfer.files import write_atomic

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ganexport"))
from every_network import importers, recipes

MINUTES = 0.5  # after which no gate asks for more images
GATES = {"error": "error / rounding", "dB": "PSNR, dB", "paired": "paired FID / floor"}
HEAD = ["network", "precision", "ONNX", *GATES, "fails", "RTX engine"]


def rows(name: str, subject: Subject) -> Iterator[list[str]]:
    single = subject.to_onnx(rewrite(subject.twin()))
    y = np.arange(64) % subject.num_classes if subject.num_classes else None
    calibration = draw_inputs(subject.model, range(1 << 34, (1 << 34) + 64), y).feed()
    prover = Prover(subject, None, num_images=10_000, minutes=len(PRECISIONS) * MINUTES)
    for precision in PRECISIONS:
        try:
            keep = what_overflows(subject, single).nodes if precision == "fp16" else ()
            graph = convert(single, precision, calibration=calibration, keep=keep)
            ((_, gates),) = prover.check_graphs({precision: graph})
        except GanError as error:
            yield [name, precision, "", "-", "-", "-", f"refused: {_short(error)}", ""]
            continue
        yield [name, precision, _mb(file_bytes(graph)), *_figures(gates), _engine(graph, precision)]


def _figures(gates: Sequence[GateResult]) -> list[str]:
    values = {gate.gate: f"{gate.value:.3g}" for gate in gates}
    failed = [gate.gate for gate in gates if not gate.passed]
    return [*(values.get(gate, "-") for gate in GATES.values()), ", ".join(failed)]


def _engine(graph: bytes, precision: str) -> str:
    try:
        built = build_engine(
            graph, product="tensorrt_rtx", target="portable", precision=precision,
            profiles=[(1, 8, 16)],
        )  # fmt: skip
    except GanError as error:
        return f"refused: {_short(error)}"
    return _mb(len(built.plan))


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120].replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-o", "--output", type=Path, help="what it holds already is not run again")
    options = parser.parse_args()
    found = [] if options.output is None else _rows_of(options.output)
    done = {row[0] for row in found}
    for name, make in {**recipes(narrow=False), **importers()}.items():
        if name in done or (options.names and name not in options.names):
            continue
        for row in rows(name, make()):
            print(" | ".join(row), file=sys.stderr, flush=True)
            found.append(row)
        if options.output is not None:
            write_atomic(options.output, _page(found).encode())
    print(_page(found))


def _page(found: Sequence[Sequence[str]]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *found]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"`python {' '.join(sys.argv)}`\n\n{table}\n"


def _rows_of(file: Path) -> list[list[str]]:
    """Of a page that was written before; none if there is no such file."""
    lines = file.read_text().splitlines()[4:] if file.exists() else []
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


if __name__ == "__main__":
    main()
