"""Any number of images to disk, by any number of processes, whatever of them is killed.

shard-000000.tar  shard-000001.tar  ...     the images
records/shard-000000.tar.json  ...          of each shard that is finished
request.json                                what decides the bytes
shards.json  README.md                      the index and the data card, once all are there
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

from ganinfer.engines.cluster import Cluster
from ganinfer.engines.ray import spread
from ganinfer.errors import RequestError
from ganinfer.progress import Progress
from ganinfer.sampler import Sampler
from ganinfer.shards.asked import Planning, plan, positive
from ganinfer.shards.folder import folder_at, lasting_name
from ganinfer.shards.keeping import FILTER
from ganinfer.shards.plan import FORMAT, Plan, Standing, known_check
from ganinfer.shards.records import INDEX, REQUEST, Finished, Index, MadeBy, Request, Shard

__all__ = [
    "FILTER",
    "FORMAT",
    "INDEX",
    "REQUEST",
    "Finished",
    "Index",
    "MadeBy",
    "Plan",
    "Request",
    "Shard",
    "Standing",
    "Written",
    "plan",
    "write_missing",
    "write_shards",
]


@dataclass(frozen=True)
class Written:
    """What a call did.

    Attributes:
        records: of all that it was asked for, by their numbers; they are there now.
        num_kept: how many of them an earlier call had finished.
        damaged: names of those that were found damaged or missing, and were drawn again.
    """

    records: dict[int, Finished]
    num_kept: int
    damaged: list[str]

    @property
    def shards(self) -> list[Shard]:
        """What they are, in their order."""
        return [self.records[number].shard for number in sorted(self.records)]


def write_shards(
    sampler: Sampler,
    n: int,
    folder: Path | str,
    *,
    workers: int | None = None,
    check: str = "size",
    strict: bool = False,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
    **asked: Unpack[Planning],
) -> Written:
    """Draw images into the files of a folder, in constant memory, and write their index.

    The same call again keeps the shards that are finished and whole and goes on with the rest;
    the bytes are those of a call that nobody interrupted.

    Args:
        sampler, n, asked: as in `plan`.
        folder: for the shards and their index; made if it is not there. Or a URL that fsspec
            knows, as in "s3://bucket/prefix" (extra `remote`); the bucket must be there.
        workers, check, strict, progress: as in `Plan.write_each`, `standing` and `finish`.
        cluster: of Ray, whose actors draw; see `write_missing`.

    Returns:
        The shards, and how many of them were there already.

    Raises:
        RequestError: something that this model cannot serve or the format cannot hold, the folder
            holds the shards of another request, or the filter keeps nearly nothing.
        ConfigError: there is no such format or filter; what the folder's files say is only
            compared.
        DataError: the folder's request cannot be read, or a store refuses or cannot be reached;
            with `strict`, see `Plan.finish`.
        MissingExtra: a package for this kind of place is not installed.
    """
    planned = plan(sampler, n, **asked)
    numbers = range(len(planned))
    written = write_missing(
        planned,
        numbers,
        folder,
        workers=workers,
        check=check,
        cluster=cluster,
        progress=progress,
    )
    planned.finish(folder, strict=strict, known=written.records)
    return written


def write_missing(
    planned: Plan,
    numbers: Sequence[int],
    folder: Path | str,
    *,
    workers: int | None = None,
    check: str = "size",
    cluster: Cluster | None = None,
    progress: Progress | None = None,
) -> Written:
    """Draw those of some shards that a folder does not hold.

    Args:
        planned, numbers, folder, workers, check, progress: as above.
        cluster: of Ray (extra `ray`), whose actors draw, each by a sampler of its own; this process
            by default. Bundle and folder lie at the same place on all nodes. `workers` are of an
            actor, by default as many as its CPUs.

    Raises:
        GanError: as above, and as of `ganinfer.engines.ray.spread`.
    """
    if workers is not None:
        positive("workers", workers)
    known_check(check)
    place = folder_at(folder)
    planned.claim(place)
    before = planned.standing(place, numbers, check=check, progress=progress)
    records = dict(before.finished)
    done = sum(record.shard.count for record in records.values())
    total = sum(planned.planned(number).count for number in numbers)

    def report(what: str, more: int, _: int) -> None:
        if progress:
            progress(what, done + more, total)

    todo = before.missing
    if cluster is None:
        written = planned.write_each(todo, place, workers=workers, progress=report)
        records |= dict(zip(todo, written, strict=True))
    else:
        make = partial(_writer, planned, lasting_name(folder), workers or cluster.cpus)
        report("sampling", 0, total)
        for number, record in spread(make, todo, cluster):
            records[number] = record
            done += record.shard.count
            report("sampling", 0, total)
    return Written(records, len(before.finished), before.damaged)


def _writer(planned: Plan, folder: Path | str, workers: int) -> Callable[[int], Finished]:
    """What an actor does, in a folder that was claimed where the work was planned."""
    place = folder_at(folder)
    if not planned.holds(place):
        raise RequestError(f"{folder}: it is not there; expected a folder that all nodes share")

    def write(number: int) -> Finished:
        (record,) = planned.write_each([number], place, workers=workers)
        return record

    return write
