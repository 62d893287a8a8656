"""gan prepare, gan train, gan runs."""

import itertools
import json
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganinfer.cli.console import console, progress_bars
from ganinfer.errors import RequestError
from ganinfer.files import check_place

if TYPE_CHECKING:
    from gantrain.data.resolution import Resolution
    from gantrain.game.config import Config

_MOST_LINES = 20  # of skipped images
_PIPED = 1000  # columns of a table that nobody looks at in a terminal
_NOT_STREAMED = (
    "--stream leaves images as they are in their shards, cropped at the centre on white, with their"
    " labels or none; leave it out, or leave out --stack, --crop, --pad, --squash, --background and"
    " --labels"
)


class Crop(Enum):
    """--crop."""

    centre = "centre"
    random = "random"
    none = "none"


def _resolution(text: str) -> "Resolution":
    from gantrain.data.resolution import read_resolution

    try:
        return read_resolution(text)
    except ValueError as error:
        raise typer.BadParameter(f"--resolution {text}: {error}") from None


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
        typer.Option(metavar="N|HxW", help="Make all a square of N pixels, or H high and W wide."),
    ] = None,
    grayscale: Annotated[bool, typer.Option("--grayscale", help="Convert to one channel.")] = False,
    split: Annotated[
        str, typer.Option(help="Part to take: train, test or val, where there are such.")
    ] = "train",
    label_file: Annotated[
        Path | None, typer.Option("--labels", help="A label file: .csv, .tsv, .jsonl or .json.")
    ] = None,
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Leave labels out.")] = False,
    crop: Annotated[
        Crop, typer.Option(help="How images of another shape are cut; none skips them.")
    ] = Crop.centre,
    pad: Annotated[
        bool, typer.Option("--pad", help="Give images of another shape a border, cut nothing.")
    ] = False,
    squash: Annotated[
        bool, typer.Option("--squash", help="Squash images of another shape, cut nothing.")
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another dataset in that folder.")
    ] = False,
) -> None:
    """Decode a dataset once into images.npy, labels.npy and dataset.json."""
    from gantrain.data.indexing import index_shards
    from gantrain.data.prepare import prepare as run

    if pad + squash + (crop != Crop.centre) > 1:
        raise typer.BadParameter("expected one of --crop, --pad and --squash")
    if resolution is None and (pad or squash or crop is Crop.random):
        raise typer.BadParameter("--crop, --pad and --squash go with --resolution")
    if no_labels and label_file is not None:
        raise typer.BadParameter("expected one of --labels and --no-labels")
    size = None if resolution is None else _resolution(resolution)
    with progress_bars() as report:
        if stream:
            copied = stack or pad or squash or label_file is not None
            if copied or crop is not Crop.centre or background != "white":
                raise RequestError(_NOT_STREAMED)
            made = index_shards(
                Path(source),
                destination,
                resolution=size,
                grayscale=grayscale,
                split=split,
                strict=strict,
                overwrite=overwrite,
                labelled=not no_labels,
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
                labels=label_file,
                labelled=not no_labels,
                framing="pad" if pad else "squash" if squash else crop.value,
                background=background,
                overwrite=overwrite,
                progress=partial(report, "reading images"),
            )
    _tell_doubts(made.skipped, made.warnings, made.path)
    console.print(
        f"{made.num_images:,} images {made.height}x{made.width}x{made.channels},"
        f" {len(made.classes) or 'no'} classes -> {made.path}"
    )


def _tell_doubts(skipped: dict[str, str], warnings: list[str], path: Path) -> None:
    """Images of a dataset that were left out, and what may not be as it was meant."""
    for name, reason in itertools.islice(skipped.items(), _MOST_LINES):
        console.print(f"skipped {name}: {reason}", style="yellow", soft_wrap=True)
    if len(skipped) > _MOST_LINES:
        console.print(
            f"skipped {len(skipped):,} in all; {path}/dataset.json names them", style="yellow"
        )
    for warning in warnings:
        console.print(warning, style="yellow", soft_wrap=True)


def train(
    config: Annotated[Path, typer.Argument(help="A .toml file, or a shipped recipe's name.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder of the run; runs/<config> by default."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change the recipe: section.key=value, as in train.batch_size=32."
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Begin with these networks: a run, a checkpoint, .safetensors weights."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Key or section of the recipe that may change as the run goes on."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the networks, train nothing.")
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="Show where a step's time goes, layer by layer; keep nothing."
        ),
    ] = False,
) -> None:
    """Train a GAN. The same command again goes on from the last checkpoint."""
    from gantrain.cli.bar import training_bar
    from gantrain.cli.step import show_step
    from gantrain.cli.stopping import stop_signals
    from gantrain.distributed import leads
    from gantrain.game.build import open_data
    from gantrain.game.config import load_config
    from gantrain.training.train import train as run

    begin = [] if start is None else [f"start.path={json.dumps(str(start))}"]
    recipe = load_config(config, [*(overrides or []), *begin])
    if dry_run:
        _prepare_data(recipe)
        _show_networks(recipe)
        return
    if profile:
        _prepare_data(recipe)
        show_step(recipe)
        return
    console.quiet = not leads()
    folder = output or Path("runs") / config.stem
    with stop_signals(folder) as signals:
        _prepare_data(recipe)
        where = (
            f"{folder}: pictures in samples/, figures in stats.jsonl\n"
            f"look at it with: gan report {folder}, tensorboard --logdir {folder}"
        )
        with training_bar(where) as report:
            outcome = run(
                recipe,
                folder,
                allow=allow or [],
                on_progress=report,
                should_stop=signals.should_stop,
                should_save=signals.should_save,
            )
    if not outcome.finished:
        console.print(
            f"stopped after {outcome.images_seen:,} images, saved {outcome.checkpoint};"
            " the same command goes on from there",
            soft_wrap=True,
        )
        raise typer.Exit(signals.exit_code)
    console.print(f"{outcome.images_seen:,} images -> {outcome.checkpoint}")
    images = open_data(recipe).points is None
    following = f"export {folder} -o {config.stem}.gan" if images else f"report {folder}"
    console.print(f"pictures in {folder / 'samples'}; next: gan {following}", soft_wrap=True)


def _prepare_data(recipe: "Config") -> None:
    """Look at shards, or prepare pictures, where that was not done yet, and show how far it is."""
    from gantrain.data.opening import is_whole, prepared_copy
    from gantrain.data.sources.shards import shard_files
    from gantrain.distributed import local_rank
    from gantrain.game.build import open_data

    data, place = recipe.data, Path(recipe.data.path)
    if local_rank() > 0 or not place.exists() or is_whole(place):
        return
    shards = bool(shard_files(place))
    with progress_bars() as report:
        what = "looking at the shards" if shards else "preparing the pictures"
        dataset = open_data(recipe, partial(report, what))
    if not shards:
        console.print(
            f"{place}: {len(dataset):,} pictures, {len(dataset.classes) or 'no'} classes, prepared"
            f" once in {prepared_copy(place, data.size, data.labels)}",
            soft_wrap=True,
        )
    _tell_doubts(dataset.skipped, dataset.warnings, dataset.index)


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder that holds runs, however deep.")] = Path(
        "runs"
    ),
    output: Annotated[
        Path | None, typer.Option("--json", help="Also write the runs to a JSON file.")
    ] = None,
) -> None:
    """List the runs in a folder with their figures."""
    from dataclasses import asdict

    from rich.table import Table

    from ganinfer.files import write_atomic
    from gantrain.runs.listing import list_runs

    if output is not None:
        check_place(output)
    found = list_runs(folder)
    table = Table(box=None, pad_edge=False)
    for column in ("run", "model", "data"):
        table.add_column(column, overflow="fold")
    for column in ("kimg", "best FID", "last FID"):
        table.add_column(column, justify="right")
    for column in ("state", "begins with"):
        table.add_column(column, overflow="fold")
    for run in found:
        fids = ["" if fid is None else f"{fid:.2f}" for fid in (run.best_fid, run.fid)]
        kimg = f"{run.images_seen / 1000:g}/{run.total_images / 1000:g}"
        names = (str(run.path), run.model, run.dataset)
        table.add_row(*names, kimg, *fids, run.state, run.begins_with or "")
    # A program that reads this wants a run a line, however long.
    wide = None if console.is_terminal else _PIPED
    console.print(table if found else f"{folder}: no runs there", width=wide)
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
