"""What shards there are to be, which of them are there, and how each is written."""

import os
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ganinfer.errors import DataError, DataNotFound, RequestError
from ganinfer.lookup import Kind, explain, find_part, held_function, identity
from ganinfer.progress import Progress
from ganinfer.sampler import Sampler
from ganinfer.shards.card import data_card
from ganinfer.shards.drawing import Drawer, Planned
from ganinfer.shards.duplicates import find_duplicates, hashes_are_there, write_hashes
from ganinfer.shards.folder import Folder, folder_at
from ganinfer.shards.keeping import Keeping
from ganinfer.shards.packing import Packed, Tally, packed
from ganinfer.shards.records import (
    CARD,
    INDEX,
    RECORDS,
    REQUEST,
    EarlierIndex,
    Finished,
    Index,
    MadeBy,
    Request,
    Shard,
    computes_here,
)

FORMAT = Kind(
    "ganinfer.formats",
    {"pack": held_function("batch"), "write": held_function("sink", "parts", "count")},
)

_READERS = 16  # records that are read at once: they may lie far away
_NAMED = 5  # of what is missing, in a message


@dataclass(frozen=True)
class Standing:
    """What is in a folder of the shards that were asked for.

    Attributes:
        finished: records by numbers.
        damaged: names of those that have a record, and are not there as it says.
        missing: numbers of all that are to be written, the damaged ones among them.
    """

    finished: dict[int, Finished]
    damaged: list[str]
    missing: list[int]


class Plan:
    """The shards of a request. Each is a function of the bundle, the request and its number.

    So any processes on any machines may write any of them, also the same one at the same time,
    into one folder; what is there is known by a small record for each, which is written after it.

    Attributes:
        request: what decides the bytes.
        made_by: what computes them here.
        kept_by: the filter of the request, if it has one.
    """

    def __init__(
        self, sampler: Sampler, request: Request, packer: Any, keeping: Keeping | None
    ) -> None:
        """See `ganinfer.shards.plan`, which makes it."""
        self._sampler, self._packer, self._keeping = sampler, packer, keeping
        self.kept_by = None if keeping is None else keeping.filter
        self.request, self.made_by = request, computes_here(sampler)
        self._sha256 = request.sha256
        self._suffix = re.split("[.:]", request.format.partition("@")[0])[-1]

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that gets this plan opens the bundle for itself, as a `Sampler` does."""
        return _replanned, (self._sampler, self.request, self._keeping)

    def __len__(self) -> int:
        """How many shards there are to be."""
        return -(-self.request.n // self.request.shard_size)

    def planned(self, number: int) -> Planned:
        """The shard of a number, 0 to len(self) - 1."""
        start = number * self.request.shard_size
        count = min(self.request.shard_size, self.request.n - start)
        name = f"shard-{number:06d}.{self._suffix}"
        seed = self.request.seed + start * (self.request.tries or 1)
        return Planned(number, name, start, seed, count)

    def part(self, i: int, of: int) -> range:
        """The numbers that are the i-th of `of` processes' to write, i from 0: every of-th."""
        return range(i, len(self), of)

    def claim(self, folder: Path | str | Folder) -> None:
        """Say in a folder whose shards it holds, if nobody has; what is there must be the same.

        Args:
            folder: a path, or a URL that fsspec knows, as in "s3://bucket/prefix"; for many calls
                what `ganinfer.shards.folder.folder_at` has opened.

        Raises:
            RequestError: it holds the shards of another request.
            DataError: what it says cannot be read, or nothing can be written there.
            MissingExtra: a package for this kind of place is not installed.
        """
        if not self.holds(folder):
            folder_at(folder).write(REQUEST, self.request.json_bytes)

    def holds(self, folder: Path | str | Folder) -> bool:
        """Whether a folder says that it holds these shards; False if it says nothing yet.

        Raises:
            RequestError, DataError, MissingExtra: as of `claim`.
        """
        place = folder_at(folder)
        if (found := place.read(REQUEST)) is not None:
            self._same(place, _read(Request, f"{place}/{REQUEST}", found))
            return True
        if (found := place.read(INDEX)) is not None:
            kind = Index if b'"made_by"' in found else EarlierIndex
            index = _read(kind, f"{place}/{INDEX}", found)
            if isinstance(index, EarlierIndex):  # its folders had no request.json, nor records
                self._same(place, index.request.as_now())
                self._take_over(place, index)
            else:
                self._same(place, index.request)
        return False

    def standing(
        self,
        folder: Path | str | Folder,
        numbers: Sequence[int] | None = None,
        *,
        check: str = "size",
        progress: Progress | None = None,
    ) -> Standing:
        """Which of some shards are in a folder, whole.

        Args:
            folder: that was claimed.
            numbers: of the shards; all by default.
            check: "size" looks at each file's length, "sha256" reads all bytes.
            progress: called with (what is being done, images looked at, images in all).

        Raises:
            RequestError: there is no such check.
        """
        known_check(check)
        numbers = range(len(self)) if numbers is None else numbers
        standing = Standing({}, [], [])
        total, looked = sum(self.planned(number).count for number in numbers), 0
        place = folder_at(folder)
        look = partial(self._found, place, place.sizes(len(numbers)), check=check)
        with ThreadPoolExecutor(_READERS) as pool:
            for number, found in zip(numbers, pool.map(look, numbers), strict=True):
                shard = self.planned(number)
                if isinstance(found, Finished):
                    standing.finished[number] = found
                else:
                    standing.missing.append(number)
                if found == "damaged":
                    standing.damaged.append(shard.name)
                looked += shard.count
                if progress:
                    progress("checking", looked, total)
        return standing

    def missing(self, folder: Path | str | Folder, *, check: str = "size") -> list[int]:
        """The numbers of the shards that are not in a folder; see `standing`."""
        return self.standing(folder, check=check).missing

    def write(self, number: int, folder: Path | str | Folder) -> Shard:
        """Draw a shard into a folder; see `write_each`."""
        (record,) = self.write_each([number], folder)
        return record.shard

    def write_each(
        self,
        numbers: Sequence[int],
        folder: Path | str | Folder,
        *,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> Generator[Finished]:
        """Draw shards into a folder in constant memory, each whole or not at all.

        Args:
            numbers: of the shards, 0 to len(self) - 1.
            folder: as in `claim`; made if it is not there, but for a store's bucket.
            workers: threads that encode; by default one for each processor, and 8 at most.
            progress: called with (what is being done, images done, images in all).

        Yields:
            The record of each shard, once both are in the folder.
        """
        threads = min(8, os.cpu_count() or 1) if workers is None else workers
        place, report = folder_at(folder), progress or (lambda *_: None)
        shards = [self.planned(number) for number in numbers]
        done, total = 0, sum(shard.count for shard in shards)
        report("sampling", done, total)

        def counted(batches: Iterable[Packed], tally: Tally) -> Iterator[Any]:
            nonlocal done
            for batch in batches:
                yield batch.part
                tally.add(batch)
                done += batch.count
                report("sampling", done, total)

        drawn = Drawer(self._sampler, self.request, self.kept_by).each(shards)
        hashes = self.request.duplicates is not None
        with closing(packed(drawn, self._packer.pack, threads, with_hashes=hashes)) as batches:
            for shard, of_shard in groupby(batches, key=attrgetter("shard")):
                tally = Tally()
                with place.writing(shard.name) as sink:
                    self._packer.write(sink, counted(of_shard, tally), shard.count)
                written = Shard(
                    name=shard.name,
                    sha256=sink.sha256,
                    size=sink.size,
                    count=shard.count,
                    seed=shard.seed,
                    drawn=None if self.kept_by is None else tally.num_drawn,
                    hashes_sha256=write_hashes(place, shard.name, tally.hashes) if hashes else None,
                )
                yield self._keep(place, written, self.made_by)

    def finish(
        self,
        folder: Path | str | Folder,
        *,
        strict: bool = False,
        check: str = "size",
        known: Mapping[int, Finished] | None = None,
    ) -> Index:
        """Write the index of shards that are all there, shards.json, and a README.md if none is.

        Args:
            folder: that the shards are in.
            strict: let them all be computed by the same, see `MadeBy`.
            check: as in `standing`.
            known: records of shards that this process has just seen there or written, by their
                numbers, as `Written.records` has them: they are not looked at again.

        Raises:
            DataError: shards are missing, or, with `strict`, were computed by different ones.
            RequestError: the folder holds the shards of another request.
        """
        place, records = folder_at(folder), dict(known or {})
        self.holds(folder)
        rest = [number for number in range(len(self)) if number not in records]
        found = self.standing(folder, rest, check=check)
        records |= found.finished
        if found.missing:
            names = [self.planned(number).name for number in found.missing[:_NAMED]]
            more = f" and {len(found.missing) - _NAMED} more" if len(found.missing) > _NAMED else ""
            raise DataNotFound(
                f"{place}: {len(found.missing)} of {len(self)} shards are not there:"
                f" {', '.join(names)}{more}; write them, then finish"
            )
        kinds = Counter(record.made_by.model_dump_json() for record in records.values())
        made_by = [(MadeBy.model_validate_json(text), n) for text, n in kinds.most_common()]
        if strict and len(made_by) > 1:
            told = "; ".join(f"{n} by {kind} ({_versions(kind)})" for kind, n in made_by)
            raise DataError(f"{place}: shards were not all computed by the same: {told}")
        shards = [records[number].shard for number in range(len(self))]
        index = Index(
            request=self.request,
            classes=self._sampler.classes,
            made_by=made_by,
            shards=shards,
            drawn=None if self.kept_by is None else sum(shard.drawn or 0 for shard in shards),
            duplicates=find_duplicates(place, shards) if self.request.duplicates else None,
        )
        if place.read(INDEX) != index.json_bytes:
            place.write(INDEX, index.json_bytes)
        if place.read(CARD) is None:
            place.write(CARD, data_card(index, self.kept_by))
        place.sweep()
        return index

    def _found(
        self, place: Folder, size: Callable[[str], int | None], number: int, *, check: str
    ) -> Finished | Literal["missing", "damaged"]:
        """The record of a shard that is there as it says; missing without one, else damaged."""
        planned = self.planned(number)
        name = _record_of(planned.name)
        data = None if size(name) is None else place.read(name)
        if data is None:
            return "missing"
        try:
            record = Finished.model_validate_json(data)
        except ValidationError:
            return "damaged"
        shard = record.shard
        told = (shard.name, shard.seed, shard.count, record.request_sha256)
        whole = (
            told == (planned.name, planned.seed, planned.count, self._sha256)
            and size(shard.name) == shard.size
            and (check == "size" or place.sha256(shard.name) == shard.sha256)
            and (shard.hashes_sha256 is None or hashes_are_there(place, size, shard, check=check))
        )
        return record if whole else "damaged"

    def _keep(self, place: Folder, shard: Shard, made_by: MadeBy) -> Finished:
        record = Finished(request_sha256=self._sha256, shard=shard, made_by=made_by)
        place.write(_record_of(shard.name), record.model_dump_json().encode() + b"\n")
        return record

    def _take_over(self, place: Folder, index: EarlierIndex) -> None:
        """Records for the shards of an index of format 1."""
        listed = {shard.name: shard for shard in index.shards}
        for planned in map(self.planned, range(len(self))):
            shard = listed.get(planned.name)
            if shard is not None and shard.count == planned.count:
                seeded = Shard(**shard.model_dump(), seed=planned.seed)
                self._keep(place, seeded, index.request.made_by)

    def _same(self, place: Folder, found: Request) -> None:
        earlier, now = dict(found), dict(self.request)
        if differing := [name for name in now if now[name] != earlier[name]]:
            words = "; ".join(
                f"{name} {reprlib.repr(earlier[name])}, now {reprlib.repr(now[name])}"
                for name in differing
            )
            raise RequestError(
                f"{place}: holds the shards of another request: {words}; repeat that one, or"
                " choose another folder"
            )


def _replanned(sampler: Sampler, request: Request, keeping: Keeping | None) -> Plan:
    """A plan that was pickled."""
    packer = find_part(FORMAT, request.format.partition("@")[0], where="format")
    if identity(name := request.format.partition("@")[0]) != request.format:
        raise RequestError(
            f"format {name}: its sources here are others than where the work was planned; let all"
            " machines have the same"
        )
    return Plan(sampler, request, packer, keeping)


def known_check(check: str) -> None:
    """Refuse what is no way to look at the files that are there.

    Raises:
        RequestError: names the ways.
    """
    if check not in ("size", "sha256"):
        raise RequestError(f"check: found {check!r}; expected size or sha256")


def _record_of(name: str) -> str:
    return f"{RECORDS}/{name}.json"


def _read(kind: type[Any], name: str, data: bytes) -> Any:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise DataError(
            f"{explain(error, where=name)}; expected what gan sample writes: delete it to draw"
            " all shards again, or choose another folder"
        ) from None


def _versions(made_by: MadeBy) -> str:
    return " ".join(f"{name} {version}" for name, version in made_by.versions.items())
