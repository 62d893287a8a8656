"""A generator -> a verified bundle, step by step."""

import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from torch import nn

from ganexport.bundling.assemble import assemble
from ganexport.bundling.discriminator import Shipped, ship_discriminator
from ganexport.engines.report import of_engine
from ganexport.engines.targets import Product, default_targets
from ganexport.engines.tensorrt import (
    DEFAULT_PROFILES,
    BuiltEngine,
    Profile,
    build_engine,
    check_profiles,
    pick_product,
)
from ganexport.graph.precision import PRECISIONS, Feed, convert
from ganexport.proof.parity import Prover, open_prover
from ganexport.proof.sensitivity import Kept, keep_worst_layers
from ganexport.subjects.rewrites import rewrite
from ganexport.subjects.standing import with_standing_statistics
from ganexport.subjects.subject import Spec, Subject, of_module, of_run, with_class_weights
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.backends.tensorrt import TensorRTBackend
from ganinfer.bundle.archive import check_destination, write_bundle
from ganinfer.bundle.manifest import GateResult, Precision
from ganinfer.bundle.signature import open_private_key
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import BackendUnavailable, ExportError, ParityError
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.runs.checkpoint import load_generator

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 256
_CALIBRATION_SEEDS = 1 << 34


@dataclass(frozen=True)
class Exported:
    """What `export_run` or `export` wrote.

    Attributes:
        path: the bundle. gates: that it passed. engines: in it.
        kept: layers that the search left in float32, by precision.
    """

    path: Path
    gates: list[GateResult]
    engines: list[BuiltEngine]
    kept: Mapping[Precision, Kept]


class Options(TypedDict, total=False):
    """Keyword arguments of `export_subject`, which says what they mean."""

    precisions: Sequence[str]
    tensorrt: bool
    targets: Sequence[str]
    product: str
    profiles: Sequence[Profile]
    min_psnr_db: float | None
    without: Collection[str]
    standing: Sequence[float]
    class_weights: bool
    with_discriminator: bool
    held_out: Path | None
    data: Path | None
    num_images: int
    verify: bool
    single_file: bool
    sign_key: Path | None
    progress: Progress | None


def export_run(run: Path, destination: Path, **options: Unpack[Options]) -> Exported:
    """Export the EMA generator of a run's newest checkpoint; prove the copy, then write it.

    Args:
        run: folder of a run, or one checkpoint file.
        destination: the bundle; an older bundle there is replaced.
        options: see `export_subject`.

    Raises:
        CheckpointError: the run cannot be used; and what `export_subject` raises.
    """
    return export_subject(of_run(load_generator(run)), destination, **options)


def export(
    module: nn.Module, spec: Spec, destination: Path, **options: Unpack[Options]
) -> Exported:
    """Export any generator; prove the copy, then write it.

    Args:
        module: z float32 (N, Z) and, with classes, y int64 (N,) -> float32 (N, C, H, W) on [-1, 1],
            square, grey or RGB. It is left as it is.
        spec: what it does not say of itself.
        destination: the bundle; an older bundle there is replaced.
        options: see `export_subject`; `data` is a prepared dataset of the same shape, for FID to
            it and for features. Without one a network of random weights compares what ships with
            what the module gives.

    Raises:
        ExportError: the module does not take or give this; and what `export_subject` raises.
    """
    return export_subject(of_module(module, spec), destination, **options)


def export_subject(
    subject: Subject,
    destination: Path,
    *,
    precisions: Sequence[str] = ("fp32", "fp16"),
    tensorrt: bool = False,
    targets: Sequence[str] = (),
    product: str = "auto",
    profiles: Sequence[Profile] = DEFAULT_PROFILES,
    min_psnr_db: float | None = None,
    without: Collection[str] = (),
    standing: Sequence[float] = (),
    class_weights: bool = False,
    with_discriminator: bool = False,
    held_out: Path | None = None,
    data: Path | None = None,
    num_images: int = 10_000,
    verify: bool = True,
    single_file: bool = False,
    sign_key: Path | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Export a generator of any origin; prove the copy, then write it.

    Args:
        subject: what is exported.
        destination: the bundle; an older bundle there is replaced.
        precisions: ONNX variants; "fp32" is always among them.
        tensorrt: also build engines, one for each target and precision.
        targets: what engines are built for; see `build_engine`.
        product: "auto", "tensorrt" or "tensorrt_rtx".
        profiles: smallest, likeliest and largest batch of each of an engine's profiles.
        min_psnr_db: of every variant but fp32: the most sensitive layers stay float32 until this
            PSNR on [-1, 1] (peak 2) is met; None keeps none.
        without: names of rewrites that are left out; see ganexport.subjects.rewrites.
        standing: truncations for which batch-norm statistics are taken anew and kept in the
            graph; see ganexport.subjects.standing.
        class_weights: the graph takes a weight for each class, so that classes can be mixed.
        with_discriminator: also put the run's discriminator in, for ganinfer.rejection.
        held_out: a prepared dataset that the discriminator has not seen, to calibrate it on; its
            own by default.
        data: the prepared dataset; by default where the run found it.
        num_images: of each set of the distributional gates.
        verify: False writes a bundle that is marked unverified.
        single_file: write one file instead of a directory.
        sign_key: sign it with this Ed25519 private key, a PEM file.
        progress: called with (what is being done, images done, images in all).

    Returns:
        Where it is, the gates it passed and the engines in it.

    Raises:
        ConfigError: the key cannot be used.
        DataError: the data cannot be used.
        ExportError: the graph or an engine cannot be made.
        ParityError: a gate fails; nothing is written.
    """
    check_destination(destination)
    if unknown := sorted(set(precisions) - set(PRECISIONS)):
        raise ExportError(f"--precision {unknown[0]!r}: expected {', '.join(PRECISIONS)}")
    check_profiles(profiles)
    chosen = pick_product(product, targets, precisions) if tensorrt else None
    if with_discriminator and subject.open_discriminator is None:
        raise ExportError(f"{subject.where}: --with-discriminator goes with a run; leave it out")
    sign = None if sign_key is None else open_private_key(sign_key)
    if standing:
        subject = with_standing_statistics(subject, standing, progress)
    if class_weights:
        subject = with_class_weights(subject)
    prover = open_prover(subject, data, num_images, progress) if verify else None

    single = subject.to_onnx(rewrite(subject.twin(), without))
    graphs, kept = _variants(subject, single, precisions, min_psnr_db, progress)
    gates = prover.check_graphs(graphs) if prover else []
    _require(gates, subject.where)
    engines: list[BuiltEngine] = []
    if chosen is not None:
        engines, results = _engines(prover, graphs, chosen, targets, profiles)
        gates += results
    judge = None
    if with_discriminator:
        judge = _discriminator(subject, graphs["fp32"], held_out, data, num_images, progress)
        gates += judge.gates
    _require(gates, subject.where)

    files, manifest = assemble(subject, graphs, engines, gates, prover, kept, judge)
    write_bundle(destination, manifest, files, single_file=single_file, sign=sign)
    return Exported(destination, gates, engines, kept)


def _variants(
    subject: Subject,
    single: bytes,
    precisions: Sequence[str],
    min_psnr_db: float | None,
    progress: Progress | None,
) -> tuple[dict[Precision, bytes], dict[Precision, Kept]]:
    """The float32 graph in every precision, and the layers that stay float32 in it."""
    wanted = [p for p in PRECISIONS if p == "fp32" or p in precisions]
    calibration = _calibration(subject)
    kept: dict[Precision, Kept] = {}
    if min_psnr_db is not None:
        kept = {
            p: keep_worst_layers(
                subject, single, p, min_psnr_db, calibration=calibration, progress=progress
            )
            for p in wanted
            if p != "fp32"
        }
    graphs = {
        p: convert(
            single, p, keep=list(kept[p].layers) if p in kept else (), calibration=calibration
        )
        for p in wanted
    }
    return graphs, kept


def _calibration(subject: Subject) -> Feed:
    """Latents and labels that no gate looks at."""
    seeds = range(_CALIBRATION_SEEDS, _CALIBRATION_SEEDS + CALIBRATION_IMAGES)
    y = draw_labels(seeds, subject.num_classes) if subject.num_classes else None
    return draw_inputs(subject.model, seeds, y).feed()


def _require(gates: Sequence[GateResult], where: str) -> None:
    failed = "; ".join(
        f"gate '{g.gate}' of {g.artifact}: {g.value:.4g}, expected {g.limit}"
        f"{f' ({g.detail})' if g.detail else ''}"
        for g in gates
        if not g.passed
    )
    if failed:
        raise ParityError(f"{where}: what would ship is not what was trained. {failed}")


def _engines(
    prover: Prover | None,
    graphs: Mapping[Precision, bytes],
    product: Product,
    targets: Sequence[str],
    profiles: Sequence[Profile],
) -> tuple[list[BuiltEngine], list[GateResult]]:
    """An engine for each precision and target, and the gates of those that can run here."""
    engines: list[BuiltEngine] = []
    gates: list[GateResult] = []
    for precision, target in itertools.product(graphs, targets or default_targets(product)):
        built = build_engine(
            graphs[precision],
            product=product,
            target=target,
            precision=precision,
            profiles=profiles,
        )
        if prover:
            built, results = _run_engine(prover, built, graphs[precision])
            gates += results
        engines.append(built)
    return engines, gates


def _run_engine(
    prover: Prover, built: BuiltEngine, graph: bytes
) -> tuple[BuiltEngine, list[GateResult]]:
    """Check an engine where it can run; elsewhere it stays "pending"."""
    try:
        backend = TensorRTBackend(built.plan, built.entry, prover.subject.model, "auto")
    except BackendUnavailable as reason:
        log.info("engine for %s is pending: %s", built.entry.target, reason)
        return built, []
    entry = built.entry
    with contextlib.closing(backend):
        gates = prover.check_backend(backend, f"{entry.product} {entry.target} {entry.precision}")
        report = of_engine(*backend.inspect(), graph, built.report)
    verified = entry.model_copy(update={"status": "verified"})
    return dataclasses.replace(built, entry=verified, report=report), gates


def _discriminator(
    subject: Subject,
    graph: bytes,
    held_out: Path | None,
    data: Path | None,
    num_images: int,
    progress: Progress | None,
) -> Shipped:
    """The run's discriminator, calibrated on held-out images, or else on its own."""
    place = held_out or data or Path(subject.source.dataset_path or "")
    return ship_discriminator(
        subject,
        OnnxRuntimeBackend(graph, "cpu", "fp32"),
        Dataset(place),
        held_out=held_out is not None,
        num_images=num_images,
        progress=progress,
    )
