"""Tables that several commands print."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ganinfer.cli.console import console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ganinfer.bench.measure import Refused
    from ganinfer.bundle.engine_report import EngineReport
    from ganinfer.bundle.manifest import Engine, GateResult


def engine_status(entry: "Engine") -> str:
    """What an engine's status says."""
    if entry.status == "verified":
        return entry.status
    return f"pending: in {entry.precision} it has never run on a GPU"


def engine_memory(report: "EngineReport") -> str:
    """What an engine takes of a GPU's memory: its weights, and a context's activations."""
    memory = report.device_memory_bytes
    return (
        f"weights {report.weights_bytes:,} bytes, activations and workspace"
        f" {'not known' if memory is None else f'{memory:,} bytes'}"
    )


def engine_table(entry: "Engine", report: "EngineReport") -> Table:
    """A table of an engine's layers."""
    title = (
        f"engine {entry.precision} for {entry.target}, read from the {report.read_from}:"
        f" plan {report.plan_bytes:,} bytes, {engine_memory(report)}"
    )
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in ("layer", "type", "inputs", "outputs", "of the generator"):
        table.add_column(column, overflow="fold")
    for layer in report.layers:
        types = ", ".join(layer.inputs), ", ".join(layer.outputs)
        table.add_row(layer.name, layer.type, *types, ", ".join(layer.layers))
    return table


def show_gates(gates: "Sequence[GateResult]") -> None:
    """Print gates as a table, artifact by artifact; what there is to say of them stands below.

    A terminal of less than 80 columns has no room for intervals.
    """
    wide = console.width >= 80
    table = Table(title="parity", title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, min_width=len("FAIL"))
    table.add_column("gate")
    for column in ("images", "value", *(["95 %"] if wide else [])):
        table.add_column(column, no_wrap=True, justify="right")
    table.add_column("limit")
    for artifact in dict.fromkeys(gate.artifact for gate in gates):
        table.add_row("", Text(artifact, style="bold"))
        for gate in gates:
            if gate.artifact == artifact:
                table.add_row(*_gate_row(gate, wide=wide))
    console.print(table)
    for gate in gates:
        if gate.detail:
            console.print(f"{gate.artifact}: {gate.gate}: {gate.detail}", soft_wrap=True)


def _gate_row(gate: "GateResult", *, wide: bool) -> list[Text | str]:
    mark = Text("pass", style="green") if gate.passed else Text("FAIL", style="red")
    if gate.skipped:
        mark = Text("skip", style="yellow")
    images = "" if gate.num_images is None else f"{gate.num_images:,}"
    known = gate.low is not None and gate.high is not None
    interval = f"{gate.low:.3g}\u2013{gate.high:.3g}" if known else ""
    value = "" if gate.skipped else f"{gate.value:.4g}"
    return [mark, gate.gate, images, value, *([interval] if wide else []), gate.limit]


def bench_table(title: str, columns: list[str]) -> Table:
    """One of figures, each row of which has a name."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    for column in columns:
        table.add_column(column, no_wrap=True, justify="right")
    return table


def figure(value: float | None) -> str:
    """Three digits, or all that stand before the point; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def share(value: float | None) -> str:
    """Percent."""
    return "-" if value is None else f"{value:.0%}"


def show_refused(refused: "Sequence[Refused]") -> None:
    """Print what was not measured, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for found in refused:
        reasons.setdefault((found.backend, found.reason), []).append(found.precision)
    for (backend, reason), precisions in reasons.items():
        console.print(f"not measured: {backend} {', '.join(precisions)}: {reason}", soft_wrap=True)
