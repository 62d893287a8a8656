"""gan evaluate, gan report, gan statistics, gan fetch."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ganinfer.cli.console import console, fetched_path, progress_bars
from ganinfer.cli.options import Engine, chosen_cluster, expanded
from ganinfer.engines.cluster import Cluster
from ganinfer.errors import ConfigError
from ganinfer.files import check_place
from ganinfer.scheduler.opening import Opening

if TYPE_CHECKING:
    from gantrain.evaluation.evaluate import Record

_MOST_POINTS = 100  # of a sweep, each of which is measured

# Options that several commands share.
Split = Annotated[
    Literal["train", "test", "val"],
    typer.Option(help="Which part of data that are not prepared, if they have several."),
]
NoLabels = Annotated[
    bool, typer.Option("--no-labels", help="Leave labels out of data that are not prepared.")
]
FirstSeed = Annotated[int, typer.Option(min=0, help="Seed of the first image.")]
ClassFrequencies = Annotated[
    Literal["data", "uniform"],
    typer.Option(help="Ask for each class as often as the data has it, or for all alike."),
]
ExtractorName = Annotated[
    str,
    typer.Option(help="Whose features: classifier, inception, or a network's file (.onnx, .pt)."),
]
Resizer = Annotated[
    str | None,
    typer.Option(help="How inception's images are resized: tf (default), clean or pytorch."),
]


@expanded
def evaluate(
    *,
    target: Annotated[
        Path,
        typer.Argument(
            help="Run, checkpoint, bundle, prepared dataset, or images as gan prepare takes.",
            show_default=False,
            parser=fetched_path,
            metavar="target",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Dataset, prepared or not, or npz of moments; the run's own data by default."
        ),
    ] = None,
    split: Split = "train",
    no_labels: NoLabels = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics, or your own package.module, with commas; what the data allow by default."
        ),
    ] = None,
    # torchrun takes --num for a beginning of its own --numa-binding.
    num: Annotated[
        int, typer.Option("-n", "--num", "--num-images", min=2, help="How many images.")
    ] = 10_000,
    seed: FirstSeed = 0,
    truncation: Annotated[
        float | None, typer.Option(help="Truncation of the latents; the training's by default.")
    ] = None,
    class_frequencies: ClassFrequencies = "data",
    sweep: Annotated[
        str | None,
        typer.Option(help="truncation=FIRST:LAST:STEP, the quality-diversity curve."),
    ] = None,
    extractor: ExtractorName = "classifier",
    resizer: Resizer = None,
    opening: Opening,
    engine: Engine = None,
    cluster: Cluster,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the scores there, as JSON.")
    ] = None,
) -> None:
    """Score a generator, or images, against a dataset.

    What has been measured is kept: killed and called again, the same command goes on. Under
    torchrun the processes share the images out.
    """
    from gantrain.distributed import leads, process_group, several_processes
    from gantrain.evaluation.evaluate import CURVE_METRICS
    from gantrain.evaluation.evaluate import evaluate as run
    from gantrain.evaluation.scores import metric_modules
    from gantrain.training.train import pick_device

    names = None if metrics is None else [name.strip() for name in metrics.split(",")]
    metric_modules(names or [])  # a misspelt one is not worth the wait
    if output:
        check_place(output)
    points = [truncation] if sweep is None else parse_sweep(sweep)
    actors = chosen_cluster(engine, cluster)
    if actors and several_processes():
        raise ConfigError("--engine: its actors share the images out; leave torchrun out")
    # As the actors do, who have no GPU unless they are given one.
    named = "auto" if actors is None else "cuda" if actors.gpus else "cpu"
    device = pick_device(named, where="evaluate")
    records = []
    with process_group(device):
        for point in points:
            with progress_bars() as report:
                record = run(
                    target,
                    data,
                    metrics=names if names or sweep is None else CURVE_METRICS,
                    num_images=num,
                    seed=seed,
                    truncation=point,
                    class_frequencies=class_frequencies,
                    split=split,
                    labelled=not no_labels,
                    extractor=extractor,
                    resizer=resizer,
                    device=device,
                    opening=opening,
                    cluster=actors,
                    progress=report,
                )
            records.append(record)
            if leads():
                _show_scores(record, title=None if sweep is None else f"truncation {point:g}")
    if output and leads():
        _write_scores(output, records[0] if sweep is None else records)


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="The page, one HTML file.")] = Path(
        "report.html"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Prepared dataset; the run's own by default.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Bundle exported from the run: show its parity table.",
            parser=fetched_path,
            metavar="<path>",
        ),
    ] = None,
    num: Annotated[int, typer.Option(min=2, help="Images that figures are taken from.")] = 10_000,
    extractor: ExtractorName = "classifier",
    sweep: Annotated[
        str | None, typer.Option(help="truncation=FIRST:LAST:STEP: draw the curve, too.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Also write figures for papers there, as SVG and PDF.")
    ] = None,
) -> None:
    """Write a page about a run: charts, pictures, figures, all in one HTML file."""
    from gantrain.report.page import write_report
    from gantrain.training.train import pick_device

    check_place(output)
    if figures is not None:
        check_place(figures / "losses.svg")
    with progress_bars() as show:
        write_report(
            run,
            output,
            data=data,
            bundle=bundle,
            num_images=num,
            extractor=extractor,
            truncations=[] if sweep is None else parse_sweep(sweep),
            figures=figures,
            device=pick_device("auto", where="report"),
            progress=show,
        )
    console.print(f"{output}: open it in a browser", soft_wrap=True)
    if figures is not None:
        console.print(f"{figures}: SVG and PDF", soft_wrap=True)


def statistics(
    target: Annotated[
        Path,
        typer.Argument(
            help="What gan evaluate takes; a prepared dataset, say.",
            show_default=False,
            parser=fetched_path,
            metavar="target",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The file of moments, name.npz.", show_default=False),
    ],
    num: Annotated[int, typer.Option(min=2, help="How many images, at most.")] = 50_000,
    extractor: Annotated[
        str, typer.Option(help="Whose features: inception, or a network's file (.onnx, .pt).")
    ] = "inception",
    resizer: Resizer = None,
) -> None:
    """Save the moments of images' features, as pytorch-fid reads and writes them."""
    from gantrain.evaluation.evaluate import target_moments
    from gantrain.metrics._reference import save_moments
    from gantrain.training.train import pick_device

    check_place(output)
    with progress_bars() as report:
        moments = target_moments(
            target,
            num_images=num,
            extractor=extractor,
            resizer=resizer,
            device=pick_device("auto", where="statistics"),
            progress=report,
        )
    save_moments(moments, output)
    console.print(f"{output}: mu and sigma of {moments.num_images:,} images")


def parse_sweep(sweep: str) -> list[float]:
    """The points of a sweep, "truncation=0.2:1.0:0.1", both ends included.

    Raises:
        ConfigError: it is written otherwise.
    """
    match = re.fullmatch(r"truncation=([\d.]+):([\d.]+):([\d.]+)", sweep)
    try:
        first, last, step = (float(part) for part in match.groups()) if match else (0.0,) * 3
    except ValueError:
        first, last, step = 0.0, 0.0, 0.0
    if not 0 < first <= last or step <= 0:
        raise ConfigError(
            f"--sweep {sweep}: expected truncation=FIRST:LAST:STEP, such as truncation=0.2:1.0:0.1"
        )
    count = int((last - first) / step + 1e-6) + 1
    if count > _MOST_POINTS:
        raise ConfigError(f"--sweep {sweep}: {count:,} points; expected {_MOST_POINTS} at most")
    return [round(first + n * step, 6) for n in range(count)]


def _show_scores(record: "Record", *, title: str | None) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    notes = []
    for name, score in record.scores.items():
        error = f"\u00b1 {score.standard_error:.2g}" if score.standard_error is not None else ""
        table.add_row(name, f"{score.prefix}{score.value:.4f}", error)
        if score.note:
            notes.append(f"{name}: {score.note}")
    console.print(table)
    resizer = "" if record.resizer == "none" else f", resized by {record.resizer}"
    asked = f", classes as in the {record.class_frequencies}" if record.class_frequencies else ""
    by = f" by {record.drawn_by}" if record.drawn_by else ""
    asked = ", all classes alike" if record.class_frequencies == "uniform" else asked
    console.print(
        f"of {record.num_images:,} images{by}{asked}, against {record.dataset},"
        f" features of: {record.extractor}{resizer}",
        soft_wrap=True,
    )
    for note in notes:
        console.print(note, style="yellow", soft_wrap=True)


def _write_scores(output: Path, found: "Record | list[Record]") -> None:
    """JSON, and beside a sweep's the curve."""
    from dataclasses import asdict

    from ganinfer.files import write_atomic

    if isinstance(found, list):
        from gantrain.report.charts import STYLE, quality_diversity
        from gantrain.report.meanings import features_word

        tree: object = [asdict(record) for record in found]
        swept = {r.truncation: r.values for r in found if r.truncation}
        curve = quality_diversity(swept, features_word(found[0].extractor)).svg(STYLE)
        write_atomic(output.with_suffix(".svg"), curve.encode())
    else:
        tree = asdict(found)
    write_atomic(output, (json.dumps(tree, indent=2) + "\n").encode())
