"""How a generator is exported; light, so that `gan --help` may read it."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ganinfer.errors import ConfigError
from ganinfer.options import Option

Profile = tuple[int, int, int]  # smallest, likeliest and largest batch of an engine

DEFAULT_PROFILES: tuple[Profile, ...] = ((1, 64, 256),)


def _truncations(text: str) -> list[float]:
    """From "0.3,0.5,1"."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--standing-statistics {text}: expected truncations, as in 0.3,0.5,1"
        ) from None


def _profile(text: str) -> Profile:
    """From "1:64:256"."""
    try:
        smallest, likeliest, largest = (int(part) for part in text.split(":"))
    except ValueError:
        raise ConfigError(f"--profile {text}: expected three batch sizes, as in 1:64:256") from None
    return smallest, likeliest, largest


def _decibels(text: str) -> float:
    """From "55dB" or "55"."""
    try:
        decibels = float(text.lower().removesuffix("db"))
    except ValueError:
        decibels = math.nan
    if not math.isfinite(decibels):
        raise ConfigError(f"--auto-precision {text}: expected decibels, as in 55dB")
    return decibels


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `ganexport.export` and `export_run`; those of `gan export`, too.

    Attributes:
        precisions: ONNX variants; "fp32" is always among them.
        min_psnr_db: of every variant but fp32: the most sensitive layers stay float32 until this
            PSNR on [-1, 1] (peak 2) is met; None keeps none.
        keep: layers that stay float32 in every other precision; a name stands for all layers in it.
        without: names of rewrites that are left out; see ganexport.subjects.rewrites.
        standing: truncations for which batch-norm statistics are taken anew and kept in the
            graph; see ganexport.subjects.standing.
        class_weights: the graph takes a weight for each class, so that classes can be mixed.
        with_discriminator: also put the run's discriminator in, for ganinfer.rejection.
        held_out: a prepared dataset that the discriminator has not seen, to calibrate it on; its
            own by default.
        tensorrt: also build engines, one for each target and precision.
        targets: what they are built for, see `ganexport.engines.targets`; naming one asks for it.
        product: "auto", "tensorrt" or "tensorrt_rtx".
        profiles: smallest, likeliest and largest batch of each of an engine's profiles.
        data: the prepared dataset; by default where the run found it. Of a module one of the same
            shape, for FID to it and for features; without one a network of random weights compares
            what ships with what the module gives.
        num_images: of each set of the distributional gates, at most; they stop when they are sure.
        minutes: after which the gates draw no more images.
        verify: False writes a bundle that is marked unverified.
        single_file: write one file instead of a directory.
        license: of the weights, an SPDX identifier or expression; it goes into the manifest.
        sign_key: sign it with this Ed25519 private key, a PEM file.

    Raises:
        ConfigError: an option that no export can have, or two that do not go together.
    """

    precisions: Annotated[
        Sequence[str],
        Option(
            flag="precision",
            repeated=True,
            help="Precision to ship: fp32, fp16, bf16, int8, fp8; may be repeated. The first two by"
            " default.",
        ),
    ] = ("fp32", "fp16")
    min_psnr_db: Annotated[
        float | None,
        Option(
            flag="auto-precision",
            parse=_decibels,
            help="As in 55dB: keep the most sensitive layers in fp32 until PSNR is that.",
        ),
    ] = None
    keep: Annotated[
        Collection[str],
        Option(repeated=True, help="A layer that stays in fp32, as main.13; may be repeated."),
    ] = ()
    without: Annotated[
        Collection[str],
        Option(repeated=True, help="A rewrite to leave out: upsampling, norms, classes, subpixel."),
    ] = ()
    standing: Annotated[
        Sequence[float],
        Option(
            flag="standing-statistics",
            parse=_truncations,
            help="As in 0.3,0.5,1: batch-norm statistics for these truncations, in the graph.",
        ),
    ] = ()
    class_weights: Annotated[
        bool, Option(help="Let the graph take a weight for each class, for mixtures.")
    ] = False
    with_discriminator: Annotated[
        bool, Option(help="Also ship the run's D, for rejection sampling.")
    ] = False
    held_out: Annotated[
        Path | None, Option(help="Prepared dataset that D has not seen, to calibrate it on.")
    ] = None
    tensorrt: Annotated[bool, Option(flag="trt", help="Also build TensorRT engines.")] = False
    targets: Annotated[
        Sequence[str],
        Option(
            flag="trt-target",
            repeated=True,
            help="GPUs of the engines: portable, sm89, ..., current, same-cc, ampere+; repeatable.",
        ),
    ] = ()
    product: Annotated[
        str, Option(flag="trt-product", help="What builds engines: auto, tensorrt or tensorrt_rtx.")
    ] = "auto"
    profiles: Annotated[
        Sequence[Profile],
        Option(
            flag="profile",
            repeated=True,
            parse=_profile,
            help="Batches of an engine, as in 1:64:256; may be repeated.",
        ),
    ] = DEFAULT_PROFILES
    data: Annotated[Path | None, Option(help="The run's prepared dataset, if it was moved.")] = None
    num_images: Annotated[
        int, Option(flag="num", help="Images of each set of the FID gates, at most.")
    ] = 10_000
    minutes: Annotated[float, Option(help="Minutes after which the gates draw no more images.")] = (
        10.0
    )
    verify: Annotated[bool, Option(help="Prove parity before writing.")] = True
    single_file: Annotated[bool, Option(help="Write one file, no folder.")] = False
    license: Annotated[
        str | None, Option(help="Licence of the weights as SPDX names it, as in CC-BY-4.0.")
    ] = None
    sign_key: Annotated[
        Path | None, Option(help="Sign the bundle: PEM file of an Ed25519 private key.")
    ] = None

    def __post_init__(self) -> None:
        from ganexport.graph.precision import PRECISIONS
        from ganexport.subjects.rewrites import check_rewrites
        from ganinfer.bundle.manifest import LICENSE

        for name in ("data", "held_out", "sign_key"):
            if isinstance(found := getattr(self, name), str):
                object.__setattr__(self, name, Path(found))
        for name in ("precisions", "keep", "without", "standing", "targets", "profiles"):
            if isinstance(found := getattr(self, name), str):
                raise ConfigError(f"{name}: found {found!r}; expected a list, [{found!r}]")
        if unknown := sorted(set(self.precisions) - set(PRECISIONS)):
            raise ConfigError(f"--precision {unknown[0]!r}: expected {', '.join(PRECISIONS)}")
        if self.min_psnr_db is not None and not math.isfinite(self.min_psnr_db):
            raise ConfigError(f"min_psnr_db {self.min_psnr_db:g}: expected decibels, as 55")
        if self.license is not None and not re.match(LICENSE, self.license):
            raise ConfigError(f"--license {self.license!r:.80}: expected SPDX's name, as CC-BY-4.0")
        if not self.minutes > 0:
            raise ConfigError(f"--minutes {self.minutes:g}: expected more than 0")
        if self.held_out is not None and not self.with_discriminator:
            raise ConfigError("--held-out: it goes with --with-discriminator")
        if not self.wants_engines and (
            self.product != "auto" or tuple(self.profiles) != DEFAULT_PROFILES
        ):
            raise ConfigError("--trt-product, --profile: they go with --trt or --trt-target")
        check_rewrites(self.without)
        check_profiles(self.profiles)

    @property
    def wants_engines(self) -> bool:
        """Are engines built? A target asks for them as well."""
        return self.tensorrt or bool(self.targets)


def check_profiles(profiles: Sequence[Profile]) -> None:
    """Refuse batches that no engine can have.

    Raises:
        ConfigError: a profile does not rise from 1 or more, or is there twice, or there is none.
    """
    if not profiles:
        raise ConfigError("--profile: expected at least one, as in 1:64:256")
    for profile in profiles:
        if len(profile) != 3 or not 1 <= profile[0] <= profile[1] <= profile[2]:
            raise ConfigError(
                f"--profile {':'.join(map(str, profile))}: expected smallest:likeliest:largest"
                " batch, none below 1 and each at least the one before"
            )
        if profiles.count(profile) > 1:
            raise ConfigError(
                f"--profile {':'.join(map(str, profile))}: given twice; once is enough"
            )
