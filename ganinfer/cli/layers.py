"""gan bench --layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ganinfer.cli.console import console, step_by_step
from ganinfer.cli.tables import bench_table, figure, share, show_refused
from ganinfer.files import write_atomic

if TYPE_CHECKING:
    from ganinfer.bench.layers_report import LayersReport
    from ganinfer.bench.roofline import Anatomy, LayerTime


def bench_layers(
    bundle: Path,
    *,
    backends: Sequence[str],
    precisions: Sequence[str],
    device: str,
    batch_size: int,
    seconds: float,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Measure, print, write and draw the layers."""
    import ganinfer.bench.layers_report
    from ganinfer.bench.roofline_chart import roofline_chart

    with step_by_step("measuring") as show:
        report = ganinfer.bench.layers_report.bench_layers(
            bundle,
            backends=backends,
            precisions=precisions,
            device=device,
            batch_size=batch_size,
            seconds=seconds,
            progress=show,
        )
    show_layers(report)
    if json_file is not None:
        write_atomic(json_file, report.to_json().encode())
    if plot is not None:
        write_atomic(plot, roofline_chart(report).encode())


def show_layers(report: "LayersReport") -> None:
    """A table for each candidate, of at most 100 columns; what there is to say stands below."""
    for found in report.measured:
        console.print(_layers(found))
        for line in _words(found):
            console.print(line, soft_wrap=True)
        console.print()
    show_refused(report.refused)


def _layers(found: "Anatomy") -> Table:
    columns = ["ms", "of run", "MMAC", "MB", "GMAC/s", "of roof", "type"]
    table = bench_table(f"{found.name}, {found.batch_size} images a run", columns)
    table.add_column("costliest kernel")  # it alone gives way on a narrow terminal
    for layer in found.layers:
        table.add_row(
            layer.name,
            figure(1000 * layer.seconds),
            share(layer.seconds / found.run_seconds),
            figure(layer.macs / 1e6 if layer.macs else None),
            figure(layer.num_bytes / 1e6),
            figure(layer.gmacs_per_s),
            share(layer.share_of_roof),
            layer.type or "-",
            Text(_kernel(layer), no_wrap=True, overflow="ellipsis"),
        )
    return table


def _kernel(layer: "LayerTime") -> str:
    if layer.kernels:
        return layer.kernels[0].rpartition(" ")[0]  # the type has a column of its own
    return f"in that of {layer.fused_into}" if layer.fused_into else "none is told"


def _words(found: "Anatomy") -> list[str]:
    told, run = found.layer_seconds, found.run_seconds
    profiled = found.profiled_seconds
    lines = [
        f"The layers take {_ms(told)}, {told / profiled:.0%} of a run with the profiler on"
        f" ({_ms(profiled)}); a run without takes {_ms(run)}."
    ]
    if fused := [layer for layer in found.layers if layer.fused_into]:
        names = ", ".join(f"{layer.name} (in {layer.fused_into})" for layer in fused)
        lines.append(f"Without a kernel of their own: {names}.")
    if found.machine is not None:
        lines.append(
            f"The machine: {found.machine.gmacs_per_s:,.1f} GMAC/s of {found.backend}'s"
            f" {found.precision} products of matrices, of which the run reaches"
            f" {share(found.share_of_machine)}; {found.machine.gb_per_s:,.1f} GB/s of a big copy."
        )
    if found.costliest:
        lines.append("What costs most against its roof:")
    for layer in found.costliest:
        lines.append(f"  {layer.name}: {_ms(layer.lost_seconds)} beyond it; {layer.why}")
    return lines


def _ms(seconds: float) -> str:
    return f"{figure(1000 * seconds)} ms"
