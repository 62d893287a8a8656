"""Which layers cost most against their roof: gan bench --layers of several bundles, as one page.

    python benchmarks/layers.py [--seconds S] [-o FILE.md] a.gan b.gan ...

time: of a run, over the fastest candidate's of that bundle. of machine: multiply-adds a second over
those of products of matrices by the same backend in the same precision. Of a layer: its share of
the run, and of its roof. On a machine that does nothing else.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ganinfer.bench.layers_report import LayersReport, bench_layers
from ganinfer.bench.roofline import Anatomy, LayerTime
from ganinfer.files import write_atomic

HEAD = (
    "| | time | of machine | told by layers | costliest against their roof |\n|---|---|---|---|---|"
)


def page(reports: Sequence[LayersReport], command: str) -> str:
    lines = [f"`{command}` on {reports[0].host.cpu}, {reports[0].host.cpus} cores"]
    for report in reports:
        fastest = min(found.run_seconds for found in report.measured)
        batch_size = report.measured[0].batch_size
        lines += ["", f"## {Path(report.bundle).stem}, {batch_size} images a run", "", HEAD]
        lines += [row(found, fastest) for found in report.measured]
        reasons = dict.fromkeys(f"{r.backend} {r.precision}: {r.reason}" for r in report.refused)
        lines += ["", *(f"- Not measured: {reason.splitlines()[0][:150]}" for reason in reasons)]
    return "\n".join(lines).rstrip() + "\n"


def row(found: Anatomy, fastest: float) -> str:
    layers = "<br>".join(words(layer, found) for layer in found.costliest)
    machine = "-" if found.share_of_machine is None else f"{found.share_of_machine:.0%}"
    told = found.layer_seconds / found.profiled_seconds
    return (
        f"| {found.name} | {found.run_seconds / fastest:.2f}x | {machine} | {told:.0%} | {layers} |"
    )


def words(layer: LayerTime, found: Anatomy) -> str:
    share = layer.seconds / found.layer_seconds
    roof = "" if layer.share_of_roof is None else f", {layer.share_of_roof:.0%} of its roof"
    return f"`{layer.name}`: {share:.0%}{roof}; {layer.why}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    names = " ".join(path.name for path in options.bundles)
    reports = []
    for path in options.bundles:
        print(path, file=sys.stderr)
        reports.append(
            bench_layers(path, backends=["onnxruntime", "openvino"], seconds=options.seconds)
        )
    text = page(reports, f"python benchmarks/layers.py --seconds {options.seconds:g} {names}")
    print(text)
    if options.output:
        write_atomic(options.output, text.encode())


if __name__ == "__main__":
    main()
