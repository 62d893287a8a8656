"""What is written down of shards: the request, a record of each that is finished, the index."""

from typing import Literal

from ganinfer.files import sha256_bytes
from ganinfer.host.machine import this_host
from ganinfer.lookup import identity
from ganinfer.record import Record
from ganinfer.sampler import Sampler

REQUEST, INDEX, CARD = "request.json", "shards.json", "README.md"
RECORDS = "records"  # the folder of the records


class Request(Record):
    """What decides the images and how they are packed; of a format of one's own its sources, too.

    Attributes:
        format_version: of this file and of the records.
        labels: classes that are repeated in turn; None if each seed draws its own.
        encoding: of images as files; None if the format holds none.
    """

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


class Shard(Record):
    """A finished file.

    Attributes:
        count: images in it.
        seed: of the first; those of the others follow.
    """

    name: str
    sha256: str
    size: int
    count: int
    seed: int


class Finished(Record):
    """The record of a shard: it is there once the shard is."""

    request_sha256: str
    shard: Shard
    made_by: MadeBy


class Index(Record):
    """What shards.json says; `classes` are the names of the labels' numbers.

    Attributes:
        made_by: how many shards each of these computed, from most to least.
    """

    format_version: Literal[2] = 2
    request: Request
    classes: list[str]
    made_by: list[tuple[MadeBy, int]]
    shards: list[Shard]

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
