"""What shards are asked for: a plan out of a caller's arguments, which are checked here."""

from pathlib import Path
from typing import TypedDict

from ganinfer.drawing.arguments import Labels, checked_count, labels_in_turn
from ganinfer.drawing.encoding import PNG, check_channels, encoding_of
from ganinfer.drawing.mixing import is_mixed
from ganinfer.errors import RequestError
from ganinfer.lookup import find_part, identity
from ganinfer.sampler import Sampler
from ganinfer.shards.keeping import kept_by
from ganinfer.shards.plan import FORMAT, Plan
from ganinfer.shards.records import Request


class Planning(TypedDict, total=False):
    """Keyword arguments of `plan`."""

    seed: int
    labels: Labels
    truncation: float | None
    truncation_mode: str | None
    format: str
    encoding: str | None
    shard_size: int
    keep: str | None
    classifier: Path | None
    tries: int
    duplicates: bool


def plan(
    sampler: Sampler,
    n: int,
    *,
    seed: int = 0,
    labels: Labels = None,
    truncation: float | None = None,
    truncation_mode: str | None = None,
    format: str = "tar",  # noqa: A002
    encoding: str | None = None,
    shard_size: int = 10_000,
    keep: str | None = None,
    classifier: Path | None = None,
    tries: int = 100,
    duplicates: bool = False,
) -> Plan:
    """The shards of so many images; nothing is drawn or written yet.

    Args:
        sampler: of an opened bundle.
        n: how many images.
        seed: images get the seeds seed, seed + 1, ..., seed + n - 1.
        labels: a class for all images, or several that are repeated in turn; None lets each seed
            draw its own.
        truncation, truncation_mode: as in `Sampler.sample`.
        format: a module of ganinfer.formats: "tar" (WebDataset), "parquet" (extra `parquet`) or
            "npz"; or "package.module" of one's own, after whose last name files are called:
            shard-000000.module.
        encoding: of images as files, see `ganinfer.drawing.encoding.encoding_of`; "png" by default,
            where the format holds files.
        shard_size: images in a shard; the last may have fewer.
        keep: a filter that decides which images are kept, a module of ganinfer.filters or
            "package.module" of one's own, and its number: "rejection", "classifier>=0.9". A shard
            has its own seeds, and of each class as many images as without a filter.
        classifier: the ONNX file that a filter looks with.
        tries: seeds that there are for each image to be kept.
        duplicates: also write each image's perceptual hash, so that `Plan.finish` finds those that
            several images share.

    Raises:
        RequestError: something that this model cannot serve or the format cannot hold, or that the
            filter cannot use.
        ConfigError: there is no such format or filter.
    """
    packer = find_part(FORMAT, format, where="format")
    channels, held = sampler.info["channels"], getattr(packer, "CHANNELS", None)
    if getattr(packer, "ENCODES", False):
        encoding = encoding or PNG.name
        check_channels(encoding_of(encoding), channels)
    elif encoding is not None:
        raise RequestError(f"format {format}: holds no files of images, and takes no encoding")
    if held is not None and channels not in held:
        raise RequestError(
            f"format {format}: holds images of {', '.join(map(str, held))} channels, and these have"
            f" {channels}; choose another, such as npz"
        )
    sampler.stream(n, seed=seed, truncation=truncation, truncation_mode=truncation_mode)  # or raise
    kept = None if keep is None else kept_by(keep, sampler, classifier)
    if kept is None and classifier is not None:
        raise RequestError(f"classifier {classifier}: nothing looks with it; name a filter, keep")
    if kept is not None:
        checked_count(int(n) * positive("tries", tries), int(seed))
    request = Request(
        bundle_sha256=sampler.sha256,
        n=int(n),
        seed=int(seed),
        labels=_class_numbers(sampler, labels),
        truncation=None if truncation is None else float(truncation),
        truncation_mode=truncation_mode,
        format=identity(format),
        encoding=encoding,
        shard_size=positive("shard_size", shard_size),
        keep=None if kept is None else kept.name,
        classifier_sha256=None if kept is None else kept.classifier_sha256,
        tries=None if kept is None else tries,
        duplicates="phash" if duplicates else None,
    )
    return Plan(sampler, request, packer, kept)


def positive(name: str, value: int) -> int:
    """An integer of 1 or more.

    Raises:
        RequestError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RequestError(f"{name}: found {value!r}; expected an integer, 1 or more")
    return value


def _class_numbers(sampler: Sampler, labels: Labels) -> list[int] | None:
    if labels is None:
        return None
    given = labels_in_turn(labels)
    if is_mixed(given):
        raise RequestError("labels: a shard holds one class an image, and no mixtures")
    return [sampler.number_of(label) for label in given]
