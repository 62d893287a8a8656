"""gan sample."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from ganinfer.cli.console import console, shards_bar
from ganinfer.cli.options import (
    BundlePath,
    Truncation,
    TruncationMode,
    expanded,
    in_turn,
    parse_labels,
    parse_ranges,
)
from ganinfer.errors import RequestError
from ganinfer.scheduler.opening import Opening


@expanded
def sample(
    *,
    bundle: BundlePath,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="x.png for a grid, else a folder: of PNG files; with -n, shards."
        ),
    ] = Path("samples.png"),
    seeds: Annotated[
        str | None, typer.Option(help="As in 0-63, the default, or 5, or 1,4,9-12.")
    ] = None,
    num: Annotated[
        int | None, typer.Option("-n", "--num", min=1, help="Write so many images as shards.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With -n: the first; 0 by default.")] = None,
    shard_format: Annotated[
        str | None, typer.Option("--format", help="With -n: tar (default), npz, package.module.")
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(min=1, help="With -n: images in a file; 10000 by default.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With -n: threads that encode.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Class names or numbers, as in 3, 0-9, 3:0.5+8:0.5; repeated in turn."),
    ] = None,
    truncation: Truncation = None,
    truncation_mode: TruncationMode = None,
    columns: Annotated[int | None, typer.Option(min=1, help="Of the grid.")] = None,
    opening: Opening,
) -> None:
    """Draw images from a bundle: image i depends on its seed and label alone."""
    from ganinfer.drawing.images import check_picture, grid, save_png
    from ganinfer.drawing.latents import seed_array
    from ganinfer.sampler import Sampler
    from ganinfer.shards import write_shards

    of_shards = (seed, shard_format, shard_size, workers)
    if num is None and any(option is not None for option in of_shards):
        raise RequestError("--seed, --format, --shard-size, --workers: they go with -n")
    if num is not None and (seeds is not None or output.suffix.lower() == ".png"):
        raise RequestError(
            "-n: writes shards of --seed and those that follow into the folder -o; for a picture,"
            " or seeds of your choice, leave -n out"
        )
    numbers = parse_ranges("0-63" if seeds is None else seeds, "--seeds")
    seed_array(numbers)  # complain before anything is made
    suffix = output.suffix.lower()
    if suffix in (".jpg", ".jpeg", ".webp", ".gif"):
        raise RequestError(f"-o {output}: expected x.png, or a folder")
    if num is None and suffix != ".png" and len(set(numbers)) < len(numbers):
        raise RequestError("--seeds: one is there twice, and files are named by seeds; use x.png")
    with Sampler(bundle, **vars(opening)) as sampler:
        classes = None if labels is None else parse_labels(labels, sampler.classes)
        wanted = None if classes is None else in_turn(classes, len(numbers))
        step = 64
        starts = range(0, len(numbers), step)
        if num is not None:
            with shards_bar() as report:
                written = write_shards(
                    sampler,
                    num,
                    output,
                    seed=seed or 0,
                    labels=classes,
                    truncation=truncation,
                    truncation_mode=truncation_mode,
                    format=shard_format or "tar",
                    shard_size=shard_size or 10_000,
                    workers=workers,
                    progress=report,
                )
            console.print(f"{written.num_kept} of {len(written.shards)} shards were there before")
            for name in written.damaged:
                console.print(f"{name}: damaged or missing; drawn again", style="yellow")
        elif suffix == ".png":
            images = sampler.sample(
                seeds=numbers, labels=wanted, truncation=truncation, truncation_mode=truncation_mode
            )
            output.parent.mkdir(parents=True, exist_ok=True)
            save_png(output, grid(images, columns=columns))
        else:
            check_picture(sampler.info["channels"])
            output.mkdir(parents=True, exist_ok=True)
            for start in track(starts, "Sampling", console=console, transient=True):
                part = slice(start, start + step)
                images = sampler.sample(
                    seeds=numbers[part],
                    labels=None if wanted is None else wanted[part],
                    truncation=truncation,
                    truncation_mode=truncation_mode,
                )
                for seed, image in zip(numbers[part], images, strict=True):
                    save_png(output / f"{seed:08d}.png", image)
        info = sampler.info
    console.print(
        f"{num or len(numbers)} images by {info['backend']} on {info['device']}"
        f" in {info['precision']} -> {output}"
    )
