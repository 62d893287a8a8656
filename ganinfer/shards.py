"""Any number of images to disk: shards of equal size, and an index by which a killed call goes on.

shard-000000.tar   shard-000001.tar   ...   shards.json
"""

import os
import re
import reprlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from ganinfer.drawing.arguments import Labels, labels_in_turn
from ganinfer.drawing.latents import draw_labels
from ganinfer.drawing.mixing import is_mixed
from ganinfer.errors import DataError, RequestError
from ganinfer.files import only_writer, sha256_file, stream_atomic
from ganinfer.formats import Batch
from ganinfer.lookup import Kind, explain, find_part, held_function, identity
from ganinfer.progress import Progress
from ganinfer.record import Record
from ganinfer.sampler import Sampler

INDEX = "shards.json"

FORMAT = Kind(
    "ganinfer.formats",
    {"pack": held_function("batch"), "write": held_function("sink", "parts", "count")},
)

_BATCH = 128  # images that are drawn, packed and written together
_AHEAD = 4  # batches under way, beyond one for each thread that packs


class Request(Record):
    """What decides every byte of the shards; of the caller's own parts also their sources do."""

    bundle_sha256: str
    backend: str
    device: str
    precision: str
    n: int
    seed: int
    labels: list[int] | None
    truncation: float | None
    truncation_mode: str | None
    format: str
    shard_size: int


class Shard(Record):
    """A finished file."""

    name: str
    sha256: str
    size: int
    count: int


class Index(Record):
    """What shards.json says; `classes` are the names of the labels' numbers."""

    format_version: Literal[1]
    request: Request
    classes: list[str]
    shards: list[Shard]


@dataclass(frozen=True)
class Written:
    """What a call did.

    Attributes:
        shards: all that there are now.
        num_kept: how many of them an earlier call had finished.
        damaged: names of those that were found damaged or missing, and were drawn again.
    """

    shards: list[Shard]
    num_kept: int
    damaged: list[str]


@dataclass(frozen=True)
class _Planned:
    """A shard to be: the images of the seeds start to start + count - 1."""

    name: str
    start: int
    count: int


@dataclass(frozen=True)
class _Packed:
    """A batch of a shard, as its format writes it."""

    shard: _Planned
    count: int
    part: Any


def write_shards(
    sampler: Sampler,
    n: int,
    folder: Path,
    *,
    seed: int = 0,
    labels: Labels = None,
    truncation: float | None = None,
    truncation_mode: str | None = None,
    format: str = "tar",  # noqa: A002
    shard_size: int = 10_000,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Written:
    """Draw images into the files of a folder, in constant memory.

    The same call again keeps the shards that are finished and whole and goes on with the rest;
    the bytes are those of a call that nobody interrupted.

    Args:
        sampler: of an opened bundle.
        n: how many images.
        folder: for the shards and their index; made if it is not there.
        seed: images get the seeds seed, seed + 1, ..., seed + n - 1.
        labels: a class for all images, or several that are repeated in turn; None lets each seed
            draw its own.
        truncation, truncation_mode: as in `Sampler.sample`.
        format: a module of ganinfer.formats: "tar" (WebDataset) or "npz"; or "package.module" of
            one's own, after whose last name files are called: shard-000000.module.
        shard_size: images in a shard; the last may have fewer.
        workers: threads that encode; by default one for each processor, and 8 at most.
        progress: called with (what is being done, images done, images in all).

    Returns:
        The shards, and how many of them were there already.

    Raises:
        RequestError: something that this model cannot serve or the format cannot hold, or the
            folder holds the shards of another request.
        ConfigError: there is no such format. What the folder's index says is only compared.
        DataError: the folder's index cannot be read.
        GanError: another process is writing there.
    """
    packer = find_part(FORMAT, format, where="format")
    channels, held = sampler.info["channels"], getattr(packer, "CHANNELS", None)
    if held is not None and channels not in held:
        raise RequestError(
            f"format {format}: holds images of {', '.join(map(str, held))} channels, and these have"
            f" {channels}; choose another, such as npz"
        )
    threads = min(8, os.cpu_count() or 1) if workers is None else _positive("workers", workers)
    sampler.stream(n, seed=seed, truncation=truncation, truncation_mode=truncation_mode)  # or raise
    request = Request(
        bundle_sha256=sampler.sha256,
        backend=identity(sampler.info["backend"]),
        device=sampler.info["device"],
        precision=sampler.info["precision"],
        n=int(n),
        seed=int(seed),
        labels=_class_numbers(sampler, labels),
        truncation=None if truncation is None else float(truncation),
        truncation_mode=truncation_mode,
        format=identity(format),
        shard_size=_positive("shard_size", shard_size),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder):
        return _write(sampler, request, packer, folder, threads, progress or (lambda *_: None))


def _write(
    sampler: Sampler, request: Request, packer: Any, folder: Path, threads: int, report: Progress
) -> Written:
    listed = _listed(folder, request)
    kept = _whole(folder, listed, threads, report)
    finished = {shard.name: shard for shard in kept}
    done = sum(shard.count for shard in kept)
    report("sampling", done, request.n)

    def counted(batches: Iterable[_Packed]) -> Iterator[Any]:
        nonlocal done
        for batch in batches:
            yield batch.part
            done += batch.count
            report("sampling", done, request.n)

    _save_index(folder, request, sampler.classes, finished)
    todo = (shard for shard in _planned(request) if shard.name not in finished)
    with closing(_packed(sampler, request, todo, packer.pack, threads)) as batches:
        for shard, of_shard in groupby(batches, key=attrgetter("shard")):
            with stream_atomic(folder / shard.name) as sink:
                packer.write(sink, counted(of_shard), shard.count)
            finished[shard.name] = Shard(
                name=shard.name, sha256=sink.sha256, size=sink.size, count=shard.count
            )
            _save_index(folder, request, sampler.classes, finished)
    damaged = [shard.name for shard in listed if shard not in kept]
    return Written(_in_order(finished), len(kept), damaged)


def _planned(request: Request) -> Iterator[_Planned]:
    """All shards of a request, finished or not."""
    suffix = re.split("[.:]", request.format.partition("@")[0])[-1]
    for number, done in enumerate(range(0, request.n, request.shard_size)):
        name = f"shard-{number:06d}.{suffix}"
        count = min(request.shard_size, request.n - done)
        yield _Planned(name, request.seed + done, count)


def _packed(
    sampler: Sampler,
    request: Request,
    shards: Iterable[_Planned],
    pack: Callable[[Batch], Any],
    threads: int,
) -> Generator[_Packed]:
    """Batches of shards in their order, drawn by one thread and packed by others, a few ahead.

    The device is at work while a shard is flushed to the disk.
    """
    drawing, packing = ThreadPoolExecutor(1), ThreadPoolExecutor(threads)
    pending: deque[tuple[_Planned, int, Future[Any]]] = deque()

    def next_packed() -> _Packed:
        shard, count, part = pending.popleft()
        return _Packed(shard, count, part.result())

    try:
        for shard in shards:
            for start in range(shard.start, shard.start + shard.count, _BATCH):
                count = min(_BATCH, shard.start + shard.count - start)
                drawn = drawing.submit(_draw, sampler, request, start, count)
                part = packing.submit(lambda batch: pack(batch.result()), drawn)
                pending.append((shard, count, part))
                if len(pending) == threads + _AHEAD:
                    yield next_packed()
        while pending:
            yield next_packed()
    finally:
        drawing.shutdown(cancel_futures=True)
        packing.shutdown(cancel_futures=True)


def _draw(sampler: Sampler, request: Request, start: int, count: int) -> Batch:
    seeds = np.arange(count, dtype=np.uint64) + np.uint64(start)
    labels = None
    if request.labels is not None:
        done = start - request.seed
        turns = [request.labels[i % len(request.labels)] for i in range(done, done + count)]
        labels = np.array(turns, np.int64)
    elif sampler.classes:
        labels = draw_labels(seeds, len(sampler.classes))
    images = sampler.sample(
        seeds=seeds,
        labels=labels,
        truncation=request.truncation,
        truncation_mode=request.truncation_mode,
    )
    return Batch(seeds, labels, images)


def _listed(folder: Path, request: Request) -> list[Shard]:
    """The request's shards that an earlier call says it has finished.

    Raises:
        DataError: the index cannot be read.
        RequestError: it is that of another request.
    """
    path = folder / INDEX
    if not path.exists():
        return []
    try:
        index = Index.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError(
            f"{explain(error, where=str(path))}; expected the index that gan sample writes: delete"
            " it to draw all shards again, or choose another folder"
        ) from None
    earlier, now = index.request.model_dump(), request.model_dump()
    if differing := [name for name in now if now[name] != earlier[name]]:
        words = "; ".join(
            f"{name} {reprlib.repr(earlier[name])}, now {reprlib.repr(now[name])}"
            for name in differing
        )
        raise RequestError(
            f"{folder}: holds the shards of another request: {words}; repeat that one, or choose"
            " another folder"
        )
    planned = {(shard.name, shard.count) for shard in _planned(request)}
    return [shard for shard in index.shards if (shard.name, shard.count) in planned]


def _whole(folder: Path, shards: list[Shard], threads: int, report: Progress) -> list[Shard]:
    """Those whose files are there, with the bytes that were written."""

    def is_whole(shard: Shard) -> bool:
        path = folder / shard.name
        return (
            path.is_file()
            and path.stat().st_size == shard.size
            and sha256_file(path) == shard.sha256
        )

    with ThreadPoolExecutor(threads) as pool:
        whole, checked, total = [], 0, sum(shard.count for shard in shards)
        for shard, good in zip(shards, pool.map(is_whole, shards), strict=True):
            checked += shard.count
            report("checking", checked, total)
            if good:
                whole.append(shard)
    return whole


def _save_index(
    folder: Path, request: Request, classes: list[str], finished: dict[str, Shard]
) -> None:
    index = Index(format_version=1, request=request, classes=classes, shards=_in_order(finished))
    with stream_atomic(folder / INDEX) as sink:
        sink.write(index.model_dump_json(indent=1).encode() + b"\n")


def _in_order(finished: dict[str, Shard]) -> list[Shard]:
    return [finished[name] for name in sorted(finished)]


def _class_numbers(sampler: Sampler, labels: Labels) -> list[int] | None:
    if labels is None:
        return None
    given = labels_in_turn(labels)
    if is_mixed(given):
        raise RequestError("labels: a shard holds one class an image, and no mixtures")
    return [sampler.number_of(label) for label in given]


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"{name}: found {value!r}; expected an integer, 1 or more")
    return value
