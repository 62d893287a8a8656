"""Which nodes of every recipe's and importer's graph onnxruntime would run on CUDA, and which not.

    pip download --no-deps onnxruntime-gpu==1.20.0   # and others, for the Python that runs this
    python benchmarks/cuda_kernels.py *.whl -o benchmarks/results/cuda_kernels.md

Also keeps the kernels for tests/ganexport/graph/.

onnxruntime itself tells, without a GPU: see stand_in_cuda.py. The networks are narrow, their
operators those of the wide ones.
A cell: how many nodes run on CUDA once onnxruntime has fused what it fuses; and others.
shapes: computed on the CPU on purpose, from the batch's size; CUDA graphs allow for it.
no capture: some nodes run on the CPU, so that each batch is copied there and back, without CUDA
graphs. refused: neither has a kernel for that operator in bfloat16.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import stand_in_cuda

from ganexport.graph.precision import convert
from ganexport.subjects.rewrites import rewrite

ROOT = Path(__file__).parents[1]
PRECISIONS = ("fp32", "fp16", "bf16")
KERNELS = ROOT / "tests" / "ganexport" / "graph" / "cuda_kernels"
sys.path.insert(0, str(ROOT / "tests" / "ganexport"))
from every_network import importers, recipes  # noqa: E402


def write_graphs(folder: Path, wanted: list[str]) -> None:
    for name, make in (recipes() | importers()).items():
        if wanted and name not in wanted:
            continue
        subject = make()
        single = subject.to_onnx(rewrite(subject.twin()))
        for precision in PRECISIONS:
            (folder / f"{name}.{precision}.onnx").write_bytes(convert(single, precision))
        print(name, file=sys.stderr, flush=True)


def told(wheel: Path, graphs: Path) -> dict[str, Any]:
    """What cuda_placements.py prints with a wheel's onnxruntime."""
    with tempfile.TemporaryDirectory() as temporary:
        package, libraries = Path(temporary, "package"), Path(temporary, "libraries")
        libraries.mkdir()
        zipfile.ZipFile(wheel).extractall(package)
        stand_in_cuda.build(package, libraries)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (package, ROOT))),
            "LD_LIBRARY_PATH": str(libraries),
        }
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("cuda_placements.py"), graphs],
            check=True, env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def cell(found: dict[str, Any]) -> str:
    if "refusal" in found:
        operator = re.search(r"Provider type for (\w+) node", found["refusal"])
        return "refused" + (f": {operator[1]}" if operator else "")
    counts = collections.Counter(node.partition(" ")[0] for node in found["cpu"])
    others = ", ".join(f"{count} {operator}" for operator, count in sorted(counts.items()))
    if not others:
        return str(found["cuda"])
    return f"{found['cuda']}; {'shapes' if found['captured'] else 'no capture'}: {others}"


def section(version: str, told: dict[str, Any]) -> list[str]:
    graphs = told["graphs"]
    lines = [f"## onnxruntime-gpu {version}", ""]
    lines += ["| network | " + " | ".join(PRECISIONS) + " |", "|---" * (1 + len(PRECISIONS)) + "|"]
    for name in dict.fromkeys(file.rpartition(".")[0] for file in graphs):
        cells = (cell(graphs[f"{name}.{precision}"]) for precision in PRECISIONS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    fused = {o for found in graphs.values() for o in found.get("operators", ()) if "." in o}
    names = ", ".join(sorted(o.rpartition(".")[2] for o in fused))
    lines += ["", f"Operators of onnxruntime's own among them: {names or 'none'}.", ""]
    for name, graphs_used in told["sampled"].items():
        lines += [f"`ganinfer` runs {name} there; CUDA graphs: {graphs_used}.", ""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--network", action="append", default=[], help="all by default")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as graphs:
        write_graphs(Path(graphs), options.network)
        for wheel in options.wheels:
            found, version = told(wheel, Path(graphs)), wheel.name.split("-")[1]
            lines += section(version, found)
            (KERNELS / f"{version}.txt").write_text("\n".join(found["kernels"]) + "\n")
    text = "\n".join(lines)
    print(text)
    if options.output:
        wheels = " ".join(f"onnxruntime_gpu-{w.name.split('-')[1]}.whl" for w in options.wheels)
        title = f"`python benchmarks/cuda_kernels.py {wheels} -o {options.output}`"
        legend = __doc__.rpartition("\n\n")[2]
        options.output.write_text(f"{title}\n\n{legend}\n{text}")


if __name__ == "__main__":
    main()
