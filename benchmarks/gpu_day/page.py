"""The page of a GPU day, with the face of the project's reports: one file that needs nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ganinfer.files import write_atomic
from gantrain.report.charts import line_chart
from gantrain.report.face import STYLE, environment
from gpu_day import STAGES

Rows = dict[str, Any]

TITLES = {
    "doctor": "The machine",
    "card_tests": "Tests that need a GPU",
    "road": "The road: train, evaluate, export, verify, sample",
    "soak_test": "Ten callers, faults injected",
    "refusals": "What is refused, in which words",
}
MOST_LINES = 3  # of a chart, whose names have one line
FEW = 5  # rows skipped for one reason are shown one by one
NETWORKS = ("dcgan-64", "biggan-32")


@dataclass
class Table:
    """A section of figures: charts, a table, what could not be measured, sample sheets."""

    title: str
    note: str
    head: Sequence[str] = ()
    lines: list[list[str]] = field(default_factory=list)
    charts: list[Markup] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    sheets: list[tuple[str, str]] = field(default_factory=list)


def write(tree: dict[str, Any], output: Path) -> None:
    """Write the page of some results; nothing of it is measured here."""
    stages = tree["stages"]
    machine = of(stages, "doctor", "torch").get("gpu") or of(stages, "doctor", "host").get("cpu")
    every = [(s, name, row) for s, rows in stages.items() for name, row in rows.items()]
    statuses = [row["status"] for _, _, row in every]
    counts = {s: statuses.count(s) for s in ("ok", "failed", "died", "skipped", "partial")}
    rates = {
        name.rpartition(" ")[2]: row["values"]["tflops"]
        for name, row in stages.get("sampling_tables", {}).items()
        if "tflops" in row["values"]
    }
    tables = [*rate_table(rates), *sampling(stages, rates), *training(stages, rates), *runs(stages)]
    page = environment()
    page.filters["told"] = told
    text = page.from_string(Path(__file__).with_name("page.html").read_text()).render(
        style=Markup(STYLE),
        machine=machine or "no machine yet",
        device=tree["device"],
        counts=", ".join(f"{n} rows {status}" for status, n in counts.items() if n),
        unfinished=[stage for stage in STAGES if stage not in tree["complete"]],
        failures=[(s, n, row) for s, n, row in every if row["status"] in ("failed", "died")],
        tables=tables,
        stages={stage: gathered(stages.get(stage, {})) for stage in TITLES},
        titles=TITLES,
    )
    write_atomic(output, text.encode())


def of(stages: dict[str, Rows], stage: str, row: str) -> dict[str, Any]:
    """The values of a row; none if it is not there."""
    values: dict[str, Any] = stages.get(stage, {}).get(row, {}).get("values", {})
    return values


def gathered(rows: Rows) -> Rows:
    """Rows, of which many that were skipped for one reason are one."""
    reasons = Counter(row["why"] for row in rows.values() if row["status"] == "skipped")
    shown = {}
    for name, row in rows.items():
        many = reasons[row["why"]] if row["status"] == "skipped" else 0
        shown[f"{many} rows" if many > FEW else name] = row
    return shown


def told(row: dict[str, Any]) -> str:
    """A row in a line: why, or what was found."""
    values = dict(row["values"])
    found, allowed = values.pop("found", None), values.pop("allowed", None)
    parts = [row["why"]] if row["why"] else []
    if found is not None and not row["why"]:
        parts.append(f"{found} (allowed: {allowed})")
    parts += [f"{key.replace('_', ' ')} {figure(value)}" for key, value in values.items()]
    return "; ".join(parts)


def figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "-" if value is None else str(value)


def rate_table(rates: dict[str, float]) -> list[Table]:
    if not rates:
        return []
    note = "Of a large matrix product; the shares below are of these."
    lines = [[precision, figure(rate)] for precision, rate in rates.items()]
    return [Table("The machine's rate", note, ["precision", "TFLOP/s"], lines)]


def share(flops_per_s: float, name: str, rates: dict[str, float]) -> str:
    """Of the rate of the precision that a row's name ends with, or names."""
    named = [p for p in ("fp16", "bf16", "TF32", "fp32") if p in name]
    rate = rates.get(named[0].lower()) if named else None
    return f"{flops_per_s / rate / 1e12:.1%}" if rate else "-"


def sampling(stages: dict[str, Rows], rates: dict[str, float]) -> list[Table]:
    """A table for each network: a line for each way, its batches side by side."""
    rows, tables = stages.get("sampling_tables", {}), []
    for network in NETWORKS:
        ways = {
            name.partition(": ")[2]: row["values"]["batches"]
            for name, row in rows.items()
            if name.startswith(f"{network}: ") and "batches" in row["values"]
        }
        macs = of(stages, "sampling_tables", f"{network}: bundle").get("macs")
        if not ways:
            continue
        lines = [
            [way, batch, *(figure(at[key]) for key in ("p50_ms", "p95_ms", "p99_ms")),
             figure(at["images_per_s"]),
             share(2 * macs * at["images_per_s"], way, rates) if macs else "-"]
            for way, batches in ways.items()
            for batch, at in batches.items()
        ]  # fmt: skip
        refused = [
            f"{name.partition(': ')[2]}: {row['why']}"
            for name, row in rows.items()
            if name.startswith(f"{network}: ") and row["status"] == "skipped"
        ]
        note = "Seeds in, pixels on the host out."
        head = ["way", "batch", "p50 ms", "p95 ms", "p99 ms", "images/s", "of the rate"]
        tables.append(Table(f"Sampling {network}", note, head, lines, by_batch(ways), refused))
    return tables


def by_batch(ways: dict[str, Any]) -> list[Markup]:
    """Latency and images/s by batch, a few ways a chart."""
    names, charts = list(ways), []
    for first in range(0, len(names), MOST_LINES):
        some = names[first : first + MOST_LINES]
        for title, key in (("Latency, p50 in ms", "p50_ms"), ("Images/s", "images_per_s")):
            points = {n: [(float(b), at[key]) for b, at in ways[n].items()] for n in some}
            title += f": {some[0]}" * (len(some) == 1)
            if max(map(len, points.values())) > 1:
                charts.append(Markup(line_chart(title, points, x_label="batch")))
    return charts


def training(stages: dict[str, Rows], rates: dict[str, float]) -> list[Table]:
    rows = stages.get("training_tables", {})
    lines = []
    for name, row in rows.items():
        if not (values := row["values"]):
            continue
        speed = values["images_per_s"]
        plain = of(stages, "training_tables", f"{name.partition(':')[0]}: plain script")
        times = f"{speed / plain['images_per_s']:.2f}" if plain else "-"
        # In fp32 torch's convolutions take TF32 where there is one.
        precision = name if "bf16" in name else "TF32" if "tf32" in rates else "fp32"
        flops = 2 * values["macs_of_an_image"] * speed
        lines.append(
            [name, figure(speed), times, figure(values["ms_per_step"]),
             figure(values["first_step_s"]), share(flops, precision, rates),
             figure(values["peak_memory_gib"])]
        )  # fmt: skip
    note = (
        "Images/s that D sees, one D and one G update a step. Backwards counts as twice forwards."
    )
    head = ["GAN", "images/s", "x plain", "ms a step", "first step s", "of the rate", "GiB"]
    return [Table("Training", note, head, lines)] if lines else []


def runs(stages: dict[str, Rows]) -> list[Table]:
    tables = []
    for name, row in stages.get("long_run", {}).items():
        if not (values := row["values"]):
            continue
        note = f"{figure(values['kimg'])} of {figure(values['total_kimg'])} kimg"
        if values["images_per_s"]:
            note += f", {figure(values['images_per_s'])} images/s"
        table = Table(name, note + ".")
        for title, key in (("FID of the averaged generator", "fid"), ("Images/s", "speed")):
            if len(values[key]) > 1:
                chart = line_chart(title, {"": values[key]}, x_label="kimg")
                table.charts.append(Markup(chart))
        table.sheets = [(f"{int(n) / 1000:g} kimg", png) for n, png in values["sheets"].items()]
        tables.append(table)
    return tables
