"""gan compare."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganinfer.cli.console import console, fetched_path, progress_bars
from ganinfer.files import check_place, write_atomic
from gantrain.cli.evaluate import (
    ClassFrequencies,
    ExtractorName,
    FirstSeed,
    NoLabels,
    Resizer,
    Split,
)

if TYPE_CHECKING:
    from gantrain.evaluation.compare import Comparison


def compare(
    targets: Annotated[
        list[Path],
        typer.Argument(
            help="Two or more, each as gan evaluate takes it.",
            show_default=False,
            parser=fetched_path,
            metavar="targets",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Dataset, prepared or not; by default what all were trained on."),
    ] = None,
    split: Split = "train",
    no_labels: NoLabels = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics, with commas; fid,kid,precision_recall,density_coverage by default.",
        ),
    ] = None,
    num: Annotated[
        int,
        typer.Option(
            "-n", "--num", "--num-images", min=2, help="How many images of each, at most."
        ),
    ] = 10_000,
    seed: FirstSeed = 0,
    truncation: Annotated[
        float | None, typer.Option(help="Truncation of the latents; each training's by default.")
    ] = None,
    class_frequencies: ClassFrequencies = "data",
    extractor: ExtractorName = "classifier",
    resizer: Resizer = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write a page, one HTML file.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write all figures there, as JSON.")
    ] = None,
) -> None:
    """Compare generators, or images: which is better, and is that more than chance?

    All are measured against the same data over as many images as the smallest has.
    """
    from gantrain.evaluation.compare import compare as run
    from gantrain.evaluation.scores import metric_modules
    from gantrain.report.comparison import write_comparison
    from gantrain.training.train import pick_device

    names = None if metrics is None else [name.strip() for name in metrics.split(",")]
    metric_modules(names or [])  # a misspelt one is not worth the wait
    for place in (output, json_file):
        if place is not None:
            check_place(place)
    with progress_bars() as report:
        found = run(
            targets,
            data,
            metrics=names,
            num_images=num,
            seed=seed,
            truncation=truncation,
            class_frequencies=class_frequencies,
            split=split,
            labelled=not no_labels,
            extractor=extractor,
            resizer=resizer,
            device=pick_device("auto", where="compare"),
            progress=report,
        )
    _show(found)
    if json_file is not None:
        _write_json(found, json_file)
    if output is not None:
        write_comparison(found, output)
        console.print(f"{output}: open it in a browser", soft_wrap=True)


def _show(found: "Comparison") -> None:
    from rich.table import Table

    from gantrain.report.comparison import letters

    called, first = letters(len(found.records)), found.records[0]
    for letter, record in zip(called, found.records, strict=True):
        console.print(f"{letter}  {record.target}", soft_wrap=True)
    figures = Table(box=None, pad_edge=False)
    for heading in ("", *called):
        figures.add_column(heading)
    for name in first.scores:
        cells = []
        for record in found.records:
            score = record.scores[name]
            error = f" \u00b1 {score.standard_error:.2g}" if score.standard_error else ""
            cells.append(f"{score.prefix}{score.value:.4g}{error}")
        figures.add_row(name, *cells)
    console.print(figures)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "", "difference", "95 % interval", ""):
        table.add_column(heading)
    for d in found.differences:
        pair = f"{called[d.first]} \u2192 {called[d.second]}"
        interval = "" if d.low is None else f"{d.low:+.3g} to {d.high:+.3g}"
        judged = d.verdict in ("better", "worse")
        told = f"{called[d.second]} is {d.verdict}" if judged else d.verdict
        table.add_row(d.score, pair, f"{d.value:+.3g}", interval, told)
    console.print(table)
    console.print(
        f"{first.num_images:,} images of each against {first.dataset}, features of:"
        f" {first.extractor}; by {_methods(found)}, corrected by Holm for"
        f" {len(found.differences)} differences; of these networks: another training of the same"
        " recipe may differ by more",
        soft_wrap=True,
    )
    for record in found.records:
        for name, score in record.scores.items():
            if score.note:
                console.print(
                    f"{record.target}, {name}: {score.note}", style="yellow", soft_wrap=True
                )


def _methods(found: "Comparison") -> str:
    """How differences were judged: "bootstrap (fid, recall), standard errors (kid)"."""
    by_method: dict[str, list[str]] = {}
    for name, method in {d.score: d.method for d in found.differences}.items():
        by_method.setdefault(method, []).append(name)
    return ", ".join(f"{method} ({', '.join(names)})" for method, names in by_method.items())


def _write_json(found: "Comparison", path: Path) -> None:
    from dataclasses import asdict

    tree = {
        "targets": [asdict(record) for record in found.records],
        "differences": [asdict(difference) for difference in found.differences],
    }
    write_atomic(path, (json.dumps(tree, indent=2) + "\n").encode())
