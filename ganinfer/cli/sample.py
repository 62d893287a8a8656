"""gan sample."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ganinfer.cli.console import console, progress_bars, shards_bar
from ganinfer.cli.options import (
    BundlePath,
    Engine,
    Truncation,
    TruncationMode,
    chosen_cluster,
    expanded,
    flags_of,
    in_turn,
    parse_labels,
    parse_ranges,
)
from ganinfer.engines.cluster import Cluster
from ganinfer.errors import RequestError
from ganinfer.files import check_place
from ganinfer.options import Option
from ganinfer.scheduler.opening import Opening
from ganinfer.stores import split_url, without_secrets

if TYPE_CHECKING:
    from ganinfer.sampler import Sampler

_STEP = 64  # pictures that are drawn and written together
_OTHER_PICTURES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".mp4")


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """What only `gan sample -n` takes."""

    seed: Annotated[int, Option(help="With -n: seed of the first image.")] = 0
    shard_format: Annotated[
        str,
        Option(
            flag="format",
            help="With -n: kind of files, tar, parquet, npz, or your own package.module.",
        ),
    ] = "tar"
    encoding: Annotated[
        str | None,
        Option(
            help="With -n: how images are encoded, png (default), webp without loss, jpeg, jpeg:90."
        ),
    ] = None
    shard_size: Annotated[int, Option(help="With -n: images in a file.")] = 10_000
    workers: Annotated[int | None, Option(help="With -n: threads that encode.")] = None
    shards: Annotated[
        str | None, Option(help="With -n: this process's part, as in 3/1000 (from 0), or auto.")
    ] = None
    finish: Annotated[bool, Option(help="With -n: only write the index of all parts.")] = False
    keep: Annotated[
        str | None, Option(help="With -n: only images that pass: rejection, 'classifier>=0.9'.")
    ] = None
    classifier: Annotated[
        Path | None, Option(help="With --keep 'classifier>=0.9': its ONNX file.")
    ] = None
    tries: Annotated[
        int, Option(help="With --keep: seeds that there are for each image to be kept.")
    ] = 100
    duplicates: Annotated[bool, Option(help="With -n: report images that look the same.")] = False
    check: Annotated[
        str, Option(help="With -n: what is compared of files that are there, size or sha256.")
    ] = "size"
    strict: Annotated[
        bool, Option(help="With -n: let all shards come from one backend, device and version.")
    ] = False


@expanded
def sample(
    *,
    bundle: BundlePath,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help="x.png for a grid, or a folder of PNG files; with -n, of shards, or s3://, ...",
        ),
    ] = "samples.png",
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds of the images, as in 0-63, the default, or 5, or 1,4,9-12."),
    ] = None,
    num: Annotated[
        int | None, typer.Option("-n", "--num", min=1, help="Write so many images as shards.")
    ] = None,
    sharding: Sharding,
    engine: Engine = None,
    cluster: Cluster,
    labels: Annotated[
        str | None,
        typer.Option(help="Class names or numbers, as in 3, 0-9, 3:0.5+8:0.5; repeated in turn."),
    ] = None,
    truncation: Truncation = None,
    truncation_mode: TruncationMode = None,
    columns: Annotated[int | None, typer.Option(min=1, help="Columns of the grid.")] = None,
    opening: Opening,
) -> None:
    """Draw images from a bundle: image i depends on its seed and label alone."""
    from ganinfer.sampler import Sampler

    if num is None and (sharding != Sharding() or engine is not None):
        raise RequestError(f"{', '.join(flags_of(Sharding))}, --engine: they go with -n")
    actors = chosen_cluster(engine, cluster)
    if actors and (sharding.shards is not None or sharding.finish):
        raise RequestError("--engine: it shares all shards out, so leave --shards, --finish out")
    path = Path(output)
    if num is not None and (seeds is not None or path.suffix.lower() == ".png"):
        raise RequestError(
            "-n: writes shards of --seed and those that follow into the folder -o; for a picture,"
            " or seeds of your choice, leave -n out"
        )
    if num is None and split_url(output)[0]:
        raise RequestError(
            f"-o {without_secrets(output)}: only shards (-n) go to a URL; give a path"
        )
    numbers = [] if num is not None else _numbers("0-63" if seeds is None else seeds, path)
    # Parts of one set of shards, begun one after the other, are to come from one backend.
    opening = dataclasses.replace(opening, measure=num is None)
    with Sampler(bundle, **vars(opening)) as sampler:
        asked: dict[str, Any] = {
            "labels": None if labels is None else parse_labels(labels, sampler.classes),
            "truncation": truncation,
            "truncation_mode": truncation_mode,
        }
        if num is not None:
            count = _write_shards(sampler, num, output, asked, sharding, actors)
        elif path.suffix.lower() == ".png":
            count = _write_grid(sampler, numbers, path, asked, columns)
        else:
            count = _write_pictures(sampler, numbers, path, asked)
        info = sampler.info
    if count:
        made_by = f"{info['backend']} on {info['device']} in {info['precision']}"
        console.print(f"{count} images by {made_by} -> {without_secrets(output)}")


def _numbers(seeds: str, output: Path) -> list[int]:
    """The seeds of pictures, before anything is made."""
    from ganinfer.drawing.latents import seed_array

    numbers = parse_ranges(seeds, "--seeds")
    seed_array(numbers)
    suffix = output.suffix.lower()
    if suffix in _OTHER_PICTURES:
        raise RequestError(f"-o {output}: expected x.png, or a folder")
    if suffix != ".png" and len(set(numbers)) < len(numbers):
        raise RequestError("--seeds: one is there twice, and files are named by seeds; use x.png")
    check_place(output if suffix == ".png" else output / "0.png")
    return numbers


def _write_shards(
    sampler: "Sampler",
    num: int,
    folder: str,
    asked: dict[str, Any],
    sharding: Sharding,
    cluster: Cluster | None,
) -> int:
    """How many images of the shards that were asked for are there now."""
    from ganinfer.shards import plan, write_missing
    from ganinfer.shards.launchers import part_of

    if sharding.finish and sharding.shards is not None:
        raise RequestError("--finish: it looks at all shards, so leave --shards out")
    i, of = (0, 1) if sharding.shards is None else part_of(sharding.shards, os.environ)
    planned = plan(
        sampler,
        num,
        seed=sharding.seed,
        format=sharding.shard_format,
        encoding=sharding.encoding,
        shard_size=sharding.shard_size,
        keep=sharding.keep,
        classifier=sharding.classifier,
        tries=sharding.tries,
        duplicates=sharding.duplicates,
        **asked,
    )
    count = 0
    with shards_bar() as report:
        if not sharding.finish:
            written = write_missing(
                planned,
                planned.part(i, of),
                folder,
                workers=sharding.workers,
                check=sharding.check,
                cluster=cluster,
                progress=report,
            )
            count = sum(shard.count for shard in written.shards)
            console.print(f"{written.num_kept} of {len(written.shards)} shards were there before")
            for name in written.damaged:
                console.print(f"{name}: damaged or missing; drawn again", style="yellow")
        if sharding.shards is None:
            check = sharding.check if sharding.finish else "size"
            known = None if sharding.finish else written.records
            index = planned.finish(folder, strict=sharding.strict, check=check, known=known)
    if sharding.shards is not None:
        console.print(f"part {i} of {of}, from 0; once all are there: gan sample ... --finish")
    elif len(index.made_by) > 1 or sharding.finish:
        for made_by, number in index.made_by:
            console.print(f"{number} shards by {made_by}", soft_wrap=True)
    if planned.kept_by:
        shards = written.shards if sharding.shards is not None else index.shards
        kept, drawn = sum(s.count for s in shards), sum(s.drawn or 0 for s in shards)
        words = planned.kept_by.words
        console.print(f"kept {kept:,} of {drawn:,} drawn: {words}", soft_wrap=True)
    if sharding.shards is None and index.duplicates:
        console.print(f"duplicates: {index.duplicates.words}", soft_wrap=True)
    return count


def _write_grid(
    sampler: "Sampler", seeds: list[int], path: Path, asked: dict[str, Any], columns: int | None
) -> int:
    from ganinfer.drawing.images import grid, save_png

    images = sampler.sample(seeds=seeds, **_in_turn(asked, len(seeds)))
    save_png(path, grid(images, columns=columns))
    return len(seeds)


def _write_pictures(
    sampler: "Sampler", seeds: list[int], folder: Path, asked: dict[str, Any]
) -> int:
    from ganinfer.drawing.images import check_picture, save_png

    check_picture(sampler.info["channels"])
    asked = _in_turn(asked, len(seeds))
    labels = asked.pop("labels")
    folder.mkdir(parents=True, exist_ok=True)
    with progress_bars() as report:
        for start in range(0, len(seeds), _STEP):
            part = slice(start, start + _STEP)
            images = sampler.sample(
                seeds=seeds[part], labels=None if labels is None else labels[part], **asked
            )
            for seed, image in zip(seeds[part], images, strict=True):
                save_png(folder / f"{seed:08d}.png", image)
            report("sampling", min(part.stop, len(seeds)), len(seeds))
    return len(seeds)


def _in_turn(asked: dict[str, Any], count: int) -> dict[str, Any]:
    """With a label for each image."""
    labels = asked["labels"]
    return {**asked, "labels": None if labels is None else in_turn(labels, count)}
