"""What is written down of shards: the request, a record of each that is finished, the index."""

from typing import Any, ClassVar, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from ganinfer.files import sha256_bytes
from ganinfer.host.machine import this_host
from ganinfer.lookup import identity
from ganinfer.record import Record
from ganinfer.sampler import Sampler

REQUEST, INDEX, CARD = "request.json", "shards.json", "README.md"
RECORDS = "records"  # the folder of the records


class GrownRecord(Record):
    """One that got fields later: where they are None it is written as before, to the byte."""

    LATER: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _as_before(self, dumped: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told = dumped(self).items()
        return {name: found for name, found in told if found is not None or name not in self.LATER}


class Request(GrownRecord):
    """What decides the images and how they are packed; of parts of one's own their sources, too.

    Attributes:
        format_version: of this file and of the records.
        labels: classes that are repeated in turn; None if each seed draws its own.
        encoding: of images as files; None if the format holds none.
        keep: the filter, and its number, as in "classifier>=0.9"; None if all images are kept.
        classifier_sha256: of the filter's file.
        tries: seeds that a shard has for each image that the filter is to keep.
        duplicates: the hash of images that is in files beside the records, if any.
    """

    LATER = ("keep", "classifier_sha256", "tries", "duplicates")

    format_version: Literal[1] = 1
    bundle_sha256: str
    n: int
    seed: int
    labels: list[int] | None
    truncation: float | None
    truncation_mode: str | None
    format: str
    encoding: str | None
    shard_size: int
    keep: str | None = None
    classifier_sha256: str | None = None
    tries: int | None = None
    duplicates: Literal["phash"] | None = None

    @property
    def json_bytes(self) -> bytes:
        """As request.json has it."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @property
    def sha256(self) -> str:
        """Of `json_bytes`: what records name the request by."""
        return sha256_bytes(self.json_bytes)


class MadeBy(Record):
    """What computed a shard; two that differ may round a pixel differently.

    Attributes:
        processor: the name of the CPU, or of the GPU.
        versions: of the packages that sampling runs on, and of Python.
    """

    backend: str
    precision: str
    device: str
    processor: str
    versions: dict[str, str]

    def __str__(self) -> str:
        return f"{self.backend} {self.precision} on {self.device}, {self.processor}"


class Shard(GrownRecord):
    """A finished file.

    Attributes:
        count: images in it.
        seed: of the first, and those of the others follow; with a filter, the first that was tried.
        drawn: with a filter, images that were drawn to get these.
        hashes_sha256: of the file with their hashes, if they were asked for.
    """

    LATER = ("drawn", "hashes_sha256")

    name: str
    sha256: str
    size: int
    count: int
    seed: int
    drawn: int | None = None
    hashes_sha256: str | None = None


class Finished(Record):
    """The record of a shard: it is there once the shard is."""

    request_sha256: str
    shard: Shard
    made_by: MadeBy


class Group(Record):
    """Images that share a hash.

    Attributes:
        hash: hexadecimal.
        count: how many images.
        seeds: the first few of theirs.
    """

    hash: str
    count: int
    seeds: list[int]


class Duplicates(Record):
    """What the hashes of all images say.

    Attributes:
        images: those that share their hash with another.
        groups: the different hashes that they share.
        largest: some groups, the largest first.
    """

    images: int
    groups: int
    largest: list[Group]

    @property
    def words(self) -> str:
        """As in "5 images share their hash in 2 groups; the largest has 3, of seeds 3, 9, 12"."""
        if not self.largest:
            return "no two images share their hash"
        first = self.largest[0]
        seeds = ", ".join(map(str, first.seeds)) + ", ..." * (first.count > len(first.seeds))
        groups = f"{self.groups:,} group{'s' * (self.groups > 1)}"
        return (
            f"{self.images:,} images share their hash in {groups}; the largest has"
            f" {first.count:,}, of seeds {seeds}"
        )


class Index(GrownRecord):
    """What shards.json says; `classes` are the names of the labels' numbers.

    Attributes:
        made_by: how many shards each of these computed, from most to least.
        drawn: with a filter, images that were drawn to get these.
        duplicates: what the images' hashes say, if they were asked for.
    """

    LATER = ("drawn", "duplicates")

    format_version: Literal[2] = 2
    request: Request
    classes: list[str]
    made_by: list[tuple[MadeBy, int]]
    shards: list[Shard]
    drawn: int | None = None
    duplicates: Duplicates | None = None

    @property
    def json_bytes(self) -> bytes:
        """As shards.json has it."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def computes_here(sampler: Sampler) -> MadeBy:
    """What a sampler computes with."""
    info, host = sampler.info, this_host()
    device = info["device"].partition(":")[0]
    return MadeBy(
        backend=identity(info["backend"]),
        precision=info["precision"],
        device=device,
        processor=host.cpu if device == "cpu" else host.gpu or host.cpu,
        versions=host.versions,
    )


class _EarlierRequest(Record):
    """A request then said what computed it, too."""

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

    def as_now(self) -> Request:
        same = self.model_dump(exclude={"backend", "device", "precision"})
        return Request(**same, encoding="png" if self.format == "tar" else None)

    @property
    def made_by(self) -> MadeBy:
        return MadeBy(
            backend=self.backend,
            precision=self.precision,
            device=self.device.partition(":")[0],
            processor="",
            versions={},
        )


class _EarlierShard(Record):
    name: str
    sha256: str
    size: int
    count: int


class EarlierIndex(Record):
    """shards.json of format 1, which was written after each shard, and was the only record."""

    format_version: Literal[1]
    request: _EarlierRequest
    classes: list[str]
    shards: list[_EarlierShard]
