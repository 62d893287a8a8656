"""manifest.json: what a bundle says of its model, of its origin and of every other file."""

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from ganinfer.drawing.model import Count, Model
from ganinfer.errors import BundleError
from ganinfer.files import sha256_bytes
from ganinfer.lookup import explain
from ganinfer.record import Record

# 2: images that are not square, or have 2 or 4 channels. 3: weights beside an ONNX file.
FORMAT_VERSIONS = (1, 2, 3)
MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
LICENSE = r"^[A-Za-z0-9.+() -]{1,100}$"  # of an SPDX expression
Interval = tuple[float, float]


def _rising(profile: list[int]) -> list[int]:
    if profile != sorted(profile):
        raise ValueError("expected smallest, likeliest and largest batch")
    return profile


BatchProfile = Annotated[
    list[Annotated[int, Field(ge=1)]], Field(min_length=3, max_length=3), AfterValidator(_rising)
]


class FileEntry(Record):
    """A file's fingerprint."""

    sha256: Sha256
    size: Count


class Graph(Record):
    """An ONNX file: z float32 (N, Z) [, y int64 (N,)] [, truncation float32 (N,)] -> images.

    They are uint8 (N, H, W, C). A graph that takes weights has y float32 (N, K). One that takes
    styles has w float32 (N, L, D), and takes_w float32 (N,): where it is 1, w is taken in the place
    of what z, y and truncation give.
    """

    path: str
    precision: Precision


class Engine(Record):
    """A TensorRT plan. status "pending": it could not run where it was built.

    report: JSON, see ganinfer.bundle.engine_report.
    profiles: smallest, likeliest and largest batch.
    """

    path: str
    report: str
    key: Sha256
    onnx_sha256: Sha256
    product: Literal["tensorrt", "tensorrt_rtx"]
    version: str
    platform: str
    target: str
    precision: Precision
    profiles: Annotated[list[BatchProfile], Field(min_length=1)]
    status: Literal["verified", "pending"]


class PixelLimits(Record):
    """What a host may do to the pixels of a set of images.

    max_steps: the largest difference. max_share: share of pixels that may differ at all.
    min_psnr_db: 10 log10(255^2 / mean squared difference). None sets no bound.
    """

    max_steps: Count | None = None
    max_share: float | None = None
    min_psnr_db: float | None = None


class Golden(Record):
    """Seeds, labels, truncations (None asks for none), and what torch gives for them.

    limits: for every precision, what may differ; bundles of older versions do not say.
    """

    path: str
    seeds: list[Count]
    labels: list[Count] | None
    truncations: list[float | None]
    limits: dict[Precision, PixelLimits] = Field(default_factory=dict)


class WitnessFiles(Record):
    """What `gan verify` needs to judge a host without torch: see ganinfer.bundle.witness."""

    moments: str
    extractor: str
    num_images: Annotated[int, Field(ge=2, le=2**32)]
    num_groups: Annotated[int, Field(ge=1, le=2**16)]
    num_features: Annotated[int, Field(ge=1, le=2**12)]


class Discriminator(Record):
    """An ONNX file: images uint8 (N, H, W, C) [, y int64 (N,)] -> logits (N,).

    objective: that it was trained by.
    scale, offsets: log p / q, of real over generated images, is scale * logit + offset; there is
        an offset for each class, or one.
    held_out: whether the scale comes from real images that it had not seen.
    quantiles: of log p / q over a burn-in of generated images, rising, the last its maximum.
    """

    path: str
    objective: str
    scale: Annotated[float, Field(gt=0)]
    offsets: Annotated[list[float], Field(min_length=1)]
    held_out: bool
    quantiles: Annotated[list[float], Field(min_length=2, max_length=1001)]


class Source(Record):
    """Where the generator comes from; of a network that gantrain did not train little is known.

    checkpoint_sha256: of the checkpoint file, or of the weights alone.
    """

    checkpoint_sha256: Sha256
    images_seen: Count | None
    ema: bool | None
    dataset_sha256: Sha256 | None
    dataset_path: str | None
    config: dict[str, Any]


class GateResult(Record):
    """One gate of the parity check: measured value against its limit.

    num_images: that it looked at; bundles of older versions do not say.
    low, high: a 95 % interval of the value, where there is one.
    """

    artifact: str
    gate: str
    value: float
    limit: str
    passed: bool
    detail: str = ""
    num_images: Count | None = None
    low: float | None = None
    high: float | None = None

    @property
    def skipped(self) -> bool:
        """Whether it is not failed, and has looked at nothing."""
        return self.passed and self.num_images == 0


def gate_result(
    artifact: str,
    gate: str,
    value: float,
    limit: str,
    passed: bool,
    detail: str = "",
    *,
    num_images: int | None,
    interval: Interval | None = None,
) -> GateResult:
    """A gate's result; JSON has neither infinity nor NaN: 999 and -999 stand for them.

    There is no interval of them. num_images: 0 of one that could not look, None of one that looks
    at none.
    """
    known = interval is not None and all(map(math.isfinite, interval))
    low, high = interval if interval is not None and known else (None, None)
    return GateResult(
        artifact=artifact,
        gate=gate,
        value=float(value) if math.isfinite(value) else (-999.0 if value < 0 else 999.0),
        limit=limit,
        passed=bool(passed),
        detail=detail,
        num_images=num_images,
        low=low,
        high=high,
    )


class Manifest(Record):
    """All that manifest.json holds.

    mapping: of a model with a style_input an ONNX file, in float32: z [, y] [, truncation] -> w.
    license: of the weights, as SPDX writes it; None if nobody has said.
    """

    format_version: int
    model: Model
    graphs: list[Graph]
    mapping: str | None = None
    engines: list[Engine]
    golden: Golden
    witness: WitnessFiles | None
    discriminator: Discriminator | None = None
    source: Source
    license: Annotated[str, Field(pattern=LICENSE)] | None = None
    tools: dict[str, str]
    parity: list[GateResult]
    verified: bool
    files: dict[str, FileEntry]

    @model_validator(mode="after")
    def _mapping_and_styles_go_together(self) -> Self:
        if (self.mapping is None) != (self.model.style_input is None):
            raise ValueError("expected mapping and model.style_input both, or neither")
        return self

    def named_files(self) -> set[str]:
        """The files that its parts are in."""
        names = {self.golden.path, *(graph.path for graph in self.graphs)}
        for engine in self.engines:
            names |= {engine.path, engine.report}
        if self.witness is not None:
            names |= {self.witness.moments, self.witness.extractor}
        if self.mapping is not None:
            names.add(self.mapping)
        if self.discriminator is not None:
            names.add(self.discriminator.path)
        return names

    def to_json(self) -> bytes:
        """The file; the same manifest is the same file."""
        text = json.dumps(self.model_dump(), indent=1, sort_keys=True, allow_nan=False)
        return text.encode() + b"\n"


def format_version(model: Model, *, weights_beside: bool = False) -> int:
    """The oldest format that such a bundle can be said in: older readers still open the others."""
    if weights_beside:
        return 3
    return 1 if isinstance(model.resolution, int) and model.channels in (1, 3) else 2


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Read manifest.json.

    Raises:
        BundleError: it is none, or of another format version; `where` names it.
    """
    try:
        version = json.loads(data)["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BundleError(f"{where}: not a manifest; export it again") from None
    if version not in FORMAT_VERSIONS:
        raise BundleError(
            f"{where}: format_version {version}, this ganinfer reads"
            f" {FORMAT_VERSIONS[0]} to {FORMAT_VERSIONS[-1]}; upgrade ganpipe"
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(explain(error, where=where)) from None


def digest_line(manifest: bytes) -> bytes:
    """The content of manifest.sha256, as `sha256sum -c` reads it."""
    return f"{sha256_bytes(manifest)}  {MANIFEST}\n".encode()
