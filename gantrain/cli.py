"""gan prepare, gan train, gan evaluate."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ganinfer.cli import console

if TYPE_CHECKING:
    from gantrain.train import Progress as TrainingProgress


def prepare(
    source: Annotated[
        str, typer.Argument(help="'digits', or a path: IDX, images, zip, npz, CIFAR binary.")
    ],
    destination: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    resolution: Annotated[int | None, typer.Option(help="Crop to a square and resize.")] = None,
    grayscale: Annotated[bool, typer.Option("--grayscale", help="Convert to one channel.")] = False,
    split: Annotated[str, typer.Option(help="train or test, where there are both.")] = "train",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse the set for one broken image.")
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
) -> None:
    """Train a GAN. The same command again goes on from the last checkpoint."""
    from gantrain.config import load_config
    from gantrain.train import train as run

    recipe = load_config(config, overrides or [])
    folder = output or Path("runs") / config.stem
    with training_bar() as report, stop_signals() as received:
        outcome = run(recipe, folder, on_progress=report, should_stop=lambda: bool(received))
    if not outcome.finished:
        console.print(
            f"stopped after {outcome.images_seen:,} images, saved;"
            " the same command goes on from there"
        )
        raise typer.Exit(128 + received[0])
    console.print(f"{outcome.images_seen:,} images -> {outcome.checkpoint}")
    console.print(
        f"pictures in {folder / 'samples'}; next: gan export {folder} -o {config.stem}.gan"
    )


def evaluate(
    target: Annotated[
        Path, typer.Argument(help="Folder of a run, or a bundle.", show_default=False)
    ],
    data: Annotated[
        Path | None, typer.Option(help="Prepared dataset; the run's own by default.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Names, separated by commas; what the data allows by default."),
    ] = None,
    num: Annotated[int, typer.Option(min=2, help="How many images.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the first image.")] = 0,
    truncation: Annotated[float | None, typer.Option(help="None by default.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write JSON there.")
    ] = None,
) -> None:
    """Score a run's EMA generator, or a bundle, against its dataset."""
    from ganinfer.files import write_atomic
    from gantrain.evaluate import evaluate as run
    from gantrain.evaluate import metric_modules, open_target

    names = [] if metrics is None else [name.strip() for name in metrics.split(",")]
    metric_modules(names)  # a misspelt one is not worth the wait
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
    with progress_bars() as report:
        batches, reference = open_target(
            target, data, num_images=num, seed=seed, truncation=truncation, progress=report
        )
        labelled = ["fid", "label_accuracy"] if reference.dataset.classes else ["fid"]
        result = run(batches, reference, metrics=names or labelled)
    for name, value in result.scores.items():
        console.print(f"{name:28} {value:.4f}")
    console.print(f"on {result.num_images:,} images, features of: {result.extractor}")
    if output:
        record = {"target": str(target), "truncation": truncation, "seed": seed, **vars(result)}
        write_atomic(output, (json.dumps(record, indent=2) + "\n").encode())


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (what is being done, done, in all) that shows one bar for each thing done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as bars:
        tasks: dict[str, object] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)  # type: ignore[arg-type]

        yield report


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
