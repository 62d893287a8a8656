"""gan prepare, gan train."""

import itertools
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ganinfer.cli.console import console, progress_bars

if TYPE_CHECKING:
    from gantrain.game.config import Config
    from gantrain.training.record import Progress as TrainingProgress

_MOST_LINES = 20  # of skipped images


class Crop(Enum):
    """--crop."""

    centre = "centre"
    random = "random"
    none = "none"


def _size(text: str) -> tuple[int, int]:
    """64, or 128x256, as width and height."""
    sides = text.lower().split("x")
    if not all(side.isdecimal() for side in sides) or len(sides) > 2:
        raise typer.BadParameter(
            f"--resolution {text}: expected 64, or width x height as in 128x256"
        )
    return int(sides[0]), int(sides[-1])


def prepare(
    source: Annotated[
        str,
        typer.Argument(
            help="'digits', 'ring8', 'grid25', hf://datasets/..., or a path: images, zip, tar,"
            " Parquet, npz, npy, LMDB, IDX, CIFAR."
        ),
    ],
    destination: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    resolution: Annotated[
        str | None,
        typer.Option(metavar="N|WxH", help="Make all a square of N pixels, or W wide and H high."),
    ] = None,
    grayscale: Annotated[bool, typer.Option("--grayscale", help="Convert to one channel.")] = False,
    split: Annotated[str, typer.Option(help="train, test or val, where there are such.")] = "train",
    labels: Annotated[
        Path | None, typer.Option(help="A label file: .csv, .tsv, .jsonl or .json.")
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Leave labels out.")] = False,
    crop: Annotated[
        Crop, typer.Option(help="Of images of another shape; none skips them.")
    ] = Crop.centre,
    pad: Annotated[
        bool, typer.Option("--pad", help="Give these a border of the background instead.")
    ] = False,
    squash: Annotated[
        bool, typer.Option("--squash", help="Change the shape of these instead.")
    ] = False,
    background: Annotated[
        str, typer.Option(help="Colour behind what is transparent, by name or as #rrggbb.")
    ] = "white",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse the set for one broken image.")
    ] = False,
    stack: Annotated[
        bool, typer.Option("--stack", help="Three grey images make one colour image.")
    ] = False,
) -> None:
    """Decode a dataset once into images.npy, labels.npy and dataset.json."""
    from gantrain.data.prepare import prepare as run

    if pad + squash + (crop != Crop.centre) > 1:
        raise typer.BadParameter("expected one of --crop, --pad and --squash")
    if resolution is None and (pad or squash or crop is Crop.random):
        raise typer.BadParameter("--crop, --pad and --squash go with --resolution")
    if no_labels and labels is not None:
        raise typer.BadParameter("expected one of --labels and --no-labels")
    with progress_bars() as report:
        made = run(
            source,
            destination,
            resolution=None if resolution is None else _size(resolution),
            grayscale=grayscale,
            split=split,
            strict=strict,
            stack=stack,
            labels=labels,
            labelled=not no_labels,
            framing="pad" if pad else "squash" if squash else crop.value,
            background=background,
            progress=lambda done, total: report("reading images", done, total),
        )
    for name, reason in itertools.islice(made.skipped.items(), _MOST_LINES):
        console.print(f"skipped {name}: {reason}", style="yellow", soft_wrap=True)
    if len(made.skipped) > _MOST_LINES:
        console.print(
            f"skipped {len(made.skipped):,} in all; {made.path}/dataset.json names them",
            style="yellow",
        )
    for warning in made.warnings:
        console.print(warning, style="yellow", soft_wrap=True)
    console.print(
        f"{made.num_images:,} images {made.width}x{made.height}x{made.channels},"
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
    from gantrain.distributed import leads
    from gantrain.game.config import load_config
    from gantrain.training.train import train as run

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
        f"pictures in {folder / 'samples'}; next: gan export {folder} -o {config.stem}.gan",
        soft_wrap=True,
    )


def _show_networks(recipe: "Config") -> None:
    """What --dry-run prints: both networks, layer by layer."""
    from rich.table import Table

    from gantrain.training.summary import summarize

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
