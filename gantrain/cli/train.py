"""gan prepare, gan train, gan runs."""

import itertools
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ganinfer.cli.console import console, progress_bars
from ganinfer.errors import DataError

if TYPE_CHECKING:
    from gantrain.game.config import Config
    from gantrain.training.record import Progress as TrainingProgress

_MOST_LINES = 20  # of skipped images
_NOT_STREAMED = (
    "--stream leaves images as they are in their shards, cropped at the centre on white, with their"
    " labels; leave it out, or leave out --stack, --crop, --pad, --squash, --background, --labels"
    " and --no-labels"
)


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
    stream: Annotated[
        bool, typer.Option("--stream", help="Leave the images in their shards; write an index.")
    ] = False,
) -> None:
    """Decode a dataset once into images.npy, labels.npy and dataset.json."""
    from gantrain.data.index import index_shards
    from gantrain.data.prepare import prepare as run

    if pad + squash + (crop != Crop.centre) > 1:
        raise typer.BadParameter("expected one of --crop, --pad and --squash")
    if resolution is None and (pad or squash or crop is Crop.random):
        raise typer.BadParameter("--crop, --pad and --squash go with --resolution")
    if no_labels and labels is not None:
        raise typer.BadParameter("expected one of --labels and --no-labels")
    size = None if resolution is None else _size(resolution)
    with progress_bars() as report:
        if stream:
            copied = stack or pad or squash or no_labels or labels is not None
            if copied or crop is not Crop.centre or background != "white":
                raise DataError(_NOT_STREAMED)
            if size and size[0] != size[1]:
                raise DataError(
                    f"--resolution {resolution}: --stream makes images square; give one number"
                )
            made = index_shards(
                Path(source),
                destination,
                resolution=None if size is None else size[0],
                grayscale=grayscale,
                split=split,
                strict=strict,
                progress=partial(report, "looking at the shards"),
            )
        else:
            made = run(
                source,
                destination,
                resolution=size,
                grayscale=grayscale,
                split=split,
                strict=strict,
                stack=stack,
                labels=labels,
                labelled=not no_labels,
                framing="pad" if pad else "squash" if squash else crop.value,
                background=background,
                progress=partial(report, "reading images"),
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
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Begin with these networks: a run, a checkpoint, .safetensors weights."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A key, or a section, that may be otherwise as the run goes on."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the networks, train nothing.")
    ] = False,
) -> None:
    """Train a GAN. The same command again goes on from the last checkpoint."""
    from gantrain.distributed import leads
    from gantrain.game.config import load_config
    from gantrain.training.train import train as run

    begin = [] if start is None else [f"start.path={json.dumps(str(start))}"]
    recipe = load_config(config, [*(overrides or []), *begin])
    if dry_run:
        _open_data(recipe)
        _show_networks(recipe)
        return
    console.quiet = not leads()
    folder = output or Path("runs") / config.stem
    _open_data(recipe)
    with training_bar() as report, stop_signals() as received:
        outcome = run(
            recipe,
            folder,
            allow=allow or [],
            on_progress=report,
            should_stop=lambda: bool(received),
        )
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


def _open_data(recipe: "Config") -> None:
    """Look at shards that were not looked at yet, and show how far that is."""
    from gantrain.data.opening import open_dataset
    from gantrain.data.sources.shards import shard_files
    from gantrain.distributed import local_rank

    data = recipe.data
    if shard_files(Path(data.path)) and local_rank() == 0:
        with progress_bars() as report:
            open_dataset(
                Path(data.path),
                resolution=data.resolution,
                progress=partial(report, "looking at the shards"),
            )


def runs(
    folder: Annotated[Path, typer.Argument(help="That holds runs, however deep.")] = Path("runs"),
    output: Annotated[
        Path | None, typer.Option("--json", help="Also write them to a JSON file.")
    ] = None,
) -> None:
    """List the runs in a folder with their figures."""
    from dataclasses import asdict

    from rich.table import Table

    from ganinfer.files import write_atomic
    from gantrain.runs.listing import list_runs

    found = list_runs(folder)
    table = Table(box=None, pad_edge=False)
    for column in ("run", "model", "data"):
        table.add_column(column)
    for column in ("kimg", "best FID", "last FID"):
        table.add_column(column, justify="right")
    for column in ("state", "begins with"):
        table.add_column(column, overflow="fold")
    for run in found:
        fids = ["" if fid is None else f"{fid:.2f}" for fid in (run.best_fid, run.fid)]
        kimg = f"{run.images_seen / 1000:g}/{run.total_images / 1000:g}"
        names = (str(run.path), run.model, run.dataset)
        table.add_row(*names, kimg, *fids, run.state, run.begins_with or "")
    console.print(table if found else f"{folder}: no runs there")
    if output is not None:
        rows = [{**asdict(run), "path": str(run.path)} for run in found]
        write_atomic(output, (json.dumps(rows, indent=2) + "\n").encode())


def _show_networks(recipe: "Config") -> None:
    """What --dry-run prints: both networks, layer by layer."""
    from rich.table import Table

    from gantrain.training.summary import summarize, what_fits

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
    if recipe.start:
        console.print(what_fits(recipe).words(), soft_wrap=True)
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
            for note in progress.notes:
                console.print(note, soft_wrap=True)
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
    """Collects SIGINT, SIGTERM and SIGHUP; a second SIGINT interrupts at once.

    SIGHUP is left alone where it is ignored already, as under nohup.
    """
    received: list[int] = []
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if number == hangup:
            console.quiet = True  # the terminal is gone, and what is written to it fails

    old = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
