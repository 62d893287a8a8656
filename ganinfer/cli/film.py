"""gan interpolate, gan truncations, gan styles."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ganinfer.cli.console import console
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
from ganinfer.files import check_place
from ganinfer.scheduler.opening import Opening


@expanded
def interpolate(
    *,
    bundle: BundlePath,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="The film, x.gif, x.webp or x.mp4; or x.png for a strip."
        ),
    ],
    seeds: Annotated[str, typer.Option(help="Seeds that the way leads through, as in 1,5,9.")],
    frames: Annotated[int, typer.Option(min=1, help="Frames from one seed to the next.")] = 60,
    loop: Annotated[
        bool, typer.Option("--loop", help="Go back to the first seed at the end.")
    ] = False,
    fps: Annotated[int, typer.Option(help="Frames a second.")] = 30,
    labels: Annotated[
        str | None, typer.Option(help="A class, or one for each step, as in 3,8.")
    ] = None,
    truncation: Truncation = None,
    truncation_mode: TruncationMode = None,
    space: Annotated[
        str, typer.Option(help="Where the way lies: z, or w, between a StyleGAN's styles.")
    ] = "z",
    opening: Opening,
) -> None:
    """Film the way from seed to seed."""
    from ganinfer.film import save_film, walk
    from ganinfer.sampler import Sampler

    stops = parse_ranges(seeds, "--seeds")
    check_place(output)
    with Sampler(bundle, **vars(opening)) as sampler:
        film = walk(
            sampler,
            stops,
            frames,
            loop=loop,
            labels=None if labels is None else parse_labels(labels, sampler.classes),
            truncation=truncation,
            truncation_mode=truncation_mode,
            space=space,
        )
        save_film(output, film, fps=fps)
    console.print(f"-> {output}")


@expanded
def truncations(
    *,
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture, x.png.")],
    seeds: Annotated[str, typer.Option(help="Seeds of the columns.")] = "0-7",
    values: Annotated[str, typer.Option(help="Truncations of the rows.")] = "0.3,0.5,0.7,1",
    labels: Annotated[
        str | None, typer.Option(help="Class names or numbers, repeated in turn.")
    ] = None,
    truncation_mode: TruncationMode = None,
    opening: Opening,
) -> None:
    """Show what truncation does: a row for each value, a column for each seed."""
    from ganinfer.drawing.images import grid, save_png
    from ganinfer.sampler import Sampler

    check_place(output, ".png")
    try:
        rows = [float(part) for part in values.split(",")]
    except ValueError:
        raise RequestError(f"--values {values}: expected truncations, as in 0.3,0.5,1") from None
    columns = parse_ranges(seeds, "--seeds")
    with Sampler(bundle, **vars(opening)) as sampler:
        wanted = None
        if labels is not None:
            wanted = in_turn(parse_labels(labels, sampler.classes), len(columns))
        images = [
            sampler.sample(
                seeds=columns, labels=wanted, truncation=value, truncation_mode=truncation_mode
            )
            for value in rows
        ]
    save_png(output, grid(np.concatenate(images), columns=len(columns)))
    console.print(f"-> {output}")


@expanded
def styles(
    *,
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture, x.png.")],
    rows: Annotated[str, typer.Option(help="Seeds of the rows, whose styles are kept.")] = "0-3",
    columns: Annotated[
        str, typer.Option(help="Seeds of the columns, whose styles come in.")
    ] = "4-9",
    places: Annotated[
        str | None,
        typer.Option(
            help="Places of the styles that come in, as in 0-6; the first half by default."
        ),
    ] = None,
    label: Annotated[str | None, typer.Option(help="A class; each seed's own by default.")] = None,
    truncation: Truncation = None,
    opening: Opening,
) -> None:
    """Mix a StyleGAN's styles: coarse ones of the columns, fine ones of the rows."""
    from ganinfer.drawing.images import grid, save_png
    from ganinfer.sampler import Sampler
    from ganinfer.styles import style_grid

    check_place(output, ".png")
    seeds, others = parse_ranges(rows, "--rows"), parse_ranges(columns, "--columns")
    with Sampler(bundle, **vars(opening)) as sampler:
        images = style_grid(
            sampler,
            seeds,
            others,
            places=None if places is None else parse_ranges(places, "--places"),
            labels=None if label is None else parse_labels(label, sampler.classes)[0],
            truncation=truncation,
        )
    save_png(output, grid(images, columns=len(others) + 1))
    console.print(f"-> {output}")
