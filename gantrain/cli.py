"""gan prepare, gan train, gan evaluate, gan report, gan statistics, gan fetch."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ganinfer.cli import console, progress_bars
from ganinfer.errors import ConfigError
from ganinfer.hub import local_path

if TYPE_CHECKING:
    from gantrain.config import Config
    from gantrain.evaluate import Record
    from gantrain.record import Progress as TrainingProgress


def prepare(
    source: Annotated[
        str,
        typer.Argument(
            help="'digits', 'ring8', 'grid25', or a path: IDX, images, zip, npz, CIFAR binary."
        ),
    ],
    destination: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    resolution: Annotated[int | None, typer.Option(help="Crop to a square and resize.")] = None,
    grayscale: Annotated[bool, typer.Option("--grayscale", help="Convert to one channel.")] = False,
    split: Annotated[str, typer.Option(help="train or test, where there are both.")] = "train",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse the set for one broken image.")
    ] = False,
    stack: Annotated[
        bool, typer.Option("--stack", help="Three grey images make one colour image.")
    ] = False,
) -> None:
    """Decode a dataset once into images.npy, labels.npy and dataset.json."""
    from gantrain.prepare import prepare as run

    with progress_bars() as report:
        made = run(
            source,
            destination,
            resolution=resolution,
            grayscale=grayscale,
            split=split,
            strict=strict,
            stack=stack,
            progress=lambda done, total: report("reading images", done, total),
        )
    for name in made.skipped:
        console.print(f"skipped {name}: broken image", style="yellow")
    console.print(
        f"{made.num_images:,} images {made.resolution}x{made.resolution}x{made.channels},"
        f" {len(made.classes) or 'no'} classes -> {made.path}"
    )


def train(
    config: Annotated[Path, typer.Argument(help="A .toml file, or a shipped recipe's name.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder of the run; runs/<config> by default."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value, as in train.batch_size=32."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the networks, train nothing.")
    ] = False,
) -> None:
    """Train a GAN. The same command again goes on from the last checkpoint."""
    from gantrain.config import load_config
    from gantrain.distributed import leads
    from gantrain.train import train as run

    recipe = load_config(config, overrides or [])
    if dry_run:
        _show_networks(recipe)
        return
    console.quiet = not leads()
    folder = output or Path("runs") / config.stem
    with training_bar() as report, stop_signals() as received:
        outcome = run(recipe, folder, on_progress=report, should_stop=lambda: bool(received))
    if not outcome.finished:
        console.print(
            f"stopped after {outcome.images_seen:,} images, saved;"
            " the same command goes on from there"
        )
        raise typer.Exit(128 + (received[0] if received else signal.SIGTERM))
    console.print(f"{outcome.images_seen:,} images -> {outcome.checkpoint}")
    console.print(
        f"pictures in {folder / 'samples'}; next: gan export {folder} -o {config.stem}.gan"
    )


def evaluate(
    target: Annotated[
        Path,
        typer.Argument(
            help="Run, checkpoint, bundle, prepared dataset, or folder, zip or npz of images.",
            show_default=False,
            parser=local_path,
            metavar="target",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(help="Prepared dataset, or npz of moments; the run's own data by default."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Names, separated by commas; a few that the data allow by default."),
    ] = None,
    # torchrun takes --num for a beginning of its own --numa-binding.
    num: Annotated[
        int, typer.Option("--num", "--num-images", min=2, help="How many images.")
    ] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the first image.")] = 0,
    truncation: Annotated[float | None, typer.Option(help="The training's by default.")] = None,
    sweep: Annotated[
        str | None,
        typer.Option(help="truncation=FIRST:LAST:STEP, the quality-diversity curve."),
    ] = None,
    extractor: Annotated[
        str, typer.Option(help="classifier, inception, or a network's file (.onnx, .pt).")
    ] = "classifier",
    resizer: Annotated[
        str | None, typer.Option(help="Of inception: tf (default), clean or pytorch.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write JSON there.")
    ] = None,
) -> None:
    """Score a generator, or images, against a dataset.

    What has been measured is kept: killed and called again, the same command goes on. Under
    torchrun the processes share the images out.
    """
    from gantrain.distributed import leads, process_group
    from gantrain.evaluate import CURVE_METRICS, evaluate_target, metric_modules, truncations
    from gantrain.train import pick_device

    names = None if metrics is None else [name.strip() for name in metrics.split(",")]
    metric_modules(names or [])  # a misspelt one is not worth the wait
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
    points = [truncation] if sweep is None else truncations(sweep)
    device = pick_device("auto", where="evaluate")
    records = []
    with process_group(device):
        for point in points:
            with progress_bars() as report:
                record = evaluate_target(
                    target,
                    data,
                    metrics=names if names or sweep is None else CURVE_METRICS,
                    num_images=num,
                    seed=seed,
                    truncation=point,
                    extractor=extractor,
                    resizer=resizer,
                    device=device,
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
            help="Exported from the run: show its parity table.",
            parser=local_path,
            metavar="<path>",
        ),
    ] = None,
    num: Annotated[int, typer.Option(min=2, help="Images that figures are taken from.")] = 10_000,
    extractor: Annotated[
        str, typer.Option(help="classifier, inception, or a network's file (.onnx, .pt).")
    ] = "classifier",
    sweep: Annotated[
        str | None, typer.Option(help="truncation=FIRST:LAST:STEP: draw the curve, too.")
    ] = None,
) -> None:
    """Write a page about a run: charts, pictures, figures, all in one HTML file."""
    from gantrain.evaluate import truncations
    from gantrain.report.page import write_report
    from gantrain.train import pick_device

    with progress_bars() as show:
        write_report(
            run,
            output,
            data=data,
            bundle=bundle,
            num_images=num,
            extractor=extractor,
            truncations=[] if sweep is None else truncations(sweep),
            device=pick_device("auto", where="report"),
            progress=show,
        )
    console.print(f"{output}: open it in a browser", soft_wrap=True)


def statistics(
    target: Annotated[
        Path,
        typer.Argument(
            help="As in evaluate; a prepared dataset, say.",
            show_default=False,
            parser=local_path,
            metavar="target",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The npz.", show_default=False)],
    num: Annotated[int, typer.Option(min=2, help="How many images, at most.")] = 50_000,
    extractor: Annotated[
        str, typer.Option(help="inception, or a network's file (.onnx, .pt).")
    ] = "inception",
    resizer: Annotated[
        str | None, typer.Option(help="Of inception: tf (default), clean or pytorch.")
    ] = None,
) -> None:
    """Save the moments of images' features, as pytorch-fid reads and writes them."""
    from gantrain.evaluate import target_moments
    from gantrain.metrics._reference import save_moments
    from gantrain.train import pick_device

    with progress_bars() as report:
        moments = target_moments(
            target,
            num_images=num,
            extractor=extractor,
            resizer=resizer,
            device=pick_device("auto", where="statistics"),
            progress=report,
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    save_moments(moments, output)
    console.print(f"{output}: mu and sigma of {moments.num_images:,} images")


def fetch(
    what: Annotated[str, typer.Argument(help="inception", show_default=False)],
    path: Annotated[
        Path | None, typer.Option("--from", help="A file that is here already.")
    ] = None,
) -> None:
    """Fetch the weights of a public network, checked by sha256."""
    from gantrain.extractors.inception import fetch_inception

    if what != "inception":
        raise ConfigError(f"fetch: there is no {what!r}; expected 'inception'")
    with progress_bars() as report:
        place = fetch_inception(path, progress=lambda done, total: report("fetching", done, total))
    console.print(f"inception -> {place}", soft_wrap=True)


def _show_scores(record: "Record", *, title: str | None) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    notes = []
    for name, score in record.scores.items():
        error = f"\u00b1 {score.standard_error:.2g}" if score.standard_error is not None else ""
        table.add_row(name, f"{score.value:.4f}", error)
        if score.note:
            notes.append(f"{name}: {score.note}")
    console.print(table)
    resizer = "" if record.resizer == "none" else f", resized by {record.resizer}"
    console.print(
        f"of {record.num_images:,} images against {record.dataset},"
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
        from gantrain.report.charts import quality_diversity

        tree: object = [asdict(record) for record in found]
        curve = quality_diversity({r.truncation: r.values for r in found if r.truncation})
        write_atomic(output.with_suffix(".svg"), curve.encode())
    else:
        tree = asdict(found)
    write_atomic(output, (json.dumps(tree, indent=2) + "\n").encode())


def _show_networks(recipe: "Config") -> None:
    """What --dry-run prints: both networks, layer by layer."""
    from rich.table import Table

    from gantrain.summary import summarize

    for network in summarize(recipe):
        table = Table(title=network.title, title_justify="left")
        for column in ("layer", "kind", "output"):
            table.add_column(column)
        for column in ("parameters", "MACs"):
            table.add_column(column, justify="right")
        for row in network.rows:
            cells = (row.name, row.kind, "x".join(map(str, row.shape)))
            table.add_row(*cells, f"{row.num_parameters:,}", f"{row.macs:,}")
        table.add_section()
        table.add_row("", "", "", f"{network.num_parameters:,}", f"{network.macs:,}")
        console.print(table)
    console.print("everything is in order; leave --dry-run out to train")


@contextmanager
def training_bar() -> Iterator[Callable[["TrainingProgress"], None]]:
    """A callback for `train`: a bar on a terminal, a line now and then elsewhere."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[stats]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=None, stats="")
        last_line = 0.0

        def report(progress: "TrainingProgress") -> None:
            nonlocal last_line
            kimg, total = progress.images_seen / 1000, progress.total_images / 1000
            for warning in progress.warnings:
                console.print(f"at {kimg:.0f} kimg: {warning}", style="yellow", soft_wrap=True)
            if not progress.images_per_s:
                return
            losses = "  ".join(f"{key} {value:.3f}" for key, value in progress.stats.items())
            stats = f"{kimg:.0f}/{total:.0f} kimg  {progress.images_per_s:.0f} images/s"
            bar.update(task, completed=kimg, total=total, stats=stats)
            finished = progress.images_seen >= progress.total_images
            if not console.is_terminal and (finished or time.monotonic() - last_line > 10):
                last_line = time.monotonic()
                console.print(f"{stats}  {losses}", soft_wrap=True)

        yield report


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM; a second SIGINT interrupts at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
