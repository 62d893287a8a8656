"""A generator -> a verified bundle, step by step."""

import contextlib
import dataclasses
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from ganexport.bundling.assemble import assemble
from ganexport.bundling.discriminator import Shipped, ship_discriminator
from ganexport.engines.report import of_engine
from ganexport.engines.targets import Product, default_targets
from ganexport.engines.tensorrt import BuiltEngine, build_engine, pick_product
from ganexport.graph.owners import nodes_of
from ganexport.graph.precision import PRECISIONS, Feed, convert, layers
from ganexport.graph.quantize import sums
from ganexport.graph.styles import cut_mapping
from ganexport.graph.subpixel import in_precision
from ganexport.options import ExportOptions
from ganexport.proof.batches import check_any_batch
from ganexport.proof.looks import look_at
from ganexport.proof.overflow import Overflowing, what_overflows
from ganexport.proof.parity import LeftOut, Prover, open_prover
from ganexport.proof.rounding import LEAST_PSNR_DB
from ganexport.proof.sensitivity import Kept, keep_worst_layers
from ganexport.proof.styles import style_gate, style_gate_of_graph
from ganexport.subjects.rewrites import rewrite
from ganexport.subjects.spec import Spec
from ganexport.subjects.standing import with_standing_statistics
from ganexport.subjects.subject import Subject, of_module, of_run, with_class_weights
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.backends.tensorrt import TensorRTBackend
from ganinfer.bundle.archive import check_destination, write_bundle
from ganinfer.bundle.manifest import GateResult, Precision
from ganinfer.bundle.signature import open_private_key
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import BackendUnavailable, ExportError, ParityError
from ganinfer.progress import Progress
from gantrain.data.opening import open_dataset
from gantrain.runs.checkpoint import load_generator

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 256
CALIBRATION_SEEDS = 1 << 34


@dataclass(frozen=True)
class Exported:
    """What `export_run` or `export` wrote.

    Attributes:
        path: the bundle. gates: that it passed. engines: in it.
        kept: what stays float32, by precision: what fp16 does not hold, layers of a search, those
            that were named, and a last layer without which gates fail.
        left_out: what was asked for and does not ship, and why; fp32 always ships.
    """

    path: Path
    gates: list[GateResult]
    engines: list[BuiltEngine]
    kept: Mapping[Precision, Kept]
    left_out: Sequence[LeftOut] = ()


def export_run(
    run: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Exported:
    """Export the EMA generator of a run's newest checkpoint; prove the copy, then write it.

    Args:
        run: folder of a run, or one checkpoint file.
        destination: the bundle; an older bundle there is replaced.
        options: what is exported with it, and how it is proven.
        progress: called with (what is being done, images done, images in all).

    Raises:
        CheckpointError: the run cannot be used; and what `export_subject` raises.
    """
    return export_subject(
        of_run(load_generator(Path(run))), destination, options, progress=progress
    )


def export(
    module: nn.Module,
    spec: Spec,
    destination: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Exported:
    """Export any generator; prove the copy, then write it.

    Args:
        module: z float32 (N, Z) and, with classes, y int64 (N,) -> float32 (N, C, H, W) on [-1, 1],
            C of 1 to 4. It is left as it is.
        spec: what it does not say of itself.
        destination: the bundle; an older bundle there is replaced.
        options: what is exported with it, and how it is proven.
        progress: called with (what is being done, images done, images in all).

    Raises:
        ExportError: the module does not take or give this; and what `export_subject` raises.
    """
    return export_subject(of_module(module, spec), destination, options, progress=progress)


def export_subject(
    subject: Subject,
    destination: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Exported:
    """Export a generator of any origin; prove the copy, then write it.

    Args:
        subject: what is exported.
        destination: the bundle; an older bundle there is replaced.
        options: what is exported with it, and how it is proven.
        progress: called with (what is being done, images done, images in all).

    Returns:
        Where it is, the gates it passed and the engines in it.

    Raises:
        ConfigError: the key cannot be used.
        DataError: the data cannot be used.
        ExportError: the graph or an engine cannot be made.
        ParityError: a gate of fp32 fails; nothing is written. What else fails is left out.
    """
    # Complain before any work.
    options, destination = options or ExportOptions(), Path(destination)
    check_destination(destination)
    product = None
    if options.wants_engines:
        product = pick_product(options.product, options.targets, options.precisions)
    if options.with_discriminator and subject.open_discriminator is None:
        raise ExportError(f"{subject.where}: --with-discriminator goes with a run; leave it out")
    sign = None if options.sign_key is None else open_private_key(options.sign_key)
    looks = look_at(subject, options.data)
    if looks.refusal:
        raise ExportError(looks.refusal)
    for warning in looks.warnings:
        log.warning("%s", warning)

    if options.standing:
        subject = with_standing_statistics(subject, options.standing, progress)
    if options.class_weights:
        subject = with_class_weights(subject)
    prover = None
    if options.verify:
        prover = open_prover(subject, options.data, options.num_images, options.minutes, progress)

    graphs, kept, left_out, nearer = _graphs(subject, options, progress)
    mapping = cut_mapping(graphs["fp32"]) if subject.model.style_input else None
    gates: list[GateResult] = []
    if prover:
        for precision, results in _checked(prover, graphs, nearer, kept):
            if mapping and not _failures(results):
                graph = graphs[precision]
                results.append(style_gate_of_graph(subject, mapping, graph, precision))
            if precision == "fp32":
                _require(results, subject.where)
            if _failures(results):
                left_out.append(LeftOut(precision, _why(precision, results), results))
                del graphs[precision]
                kept.pop(precision, None)
            else:
                gates += results
    engines: list[BuiltEngine] = []
    if product is not None:
        engines, results, beside = _engines(prover, graphs, product, options, mapping)
        gates += results
        left_out += beside
    judge = None
    if options.with_discriminator:
        judge = _discriminator(subject, graphs["fp32"], options, progress)
        gates += judge.gates
        _require(judge.gates, subject.where)

    files, manifest = assemble(
        subject, graphs, engines, gates, prover, kept, left_out, judge, mapping, options.license
    )
    write_bundle(destination, manifest, files, single_file=options.single_file, sign=sign)
    return Exported(destination, gates, engines, kept, left_out)


@dataclass(frozen=True)
class _Nearer:
    """What takes a variant's place that fails: the same, with more nodes in float32."""

    nodes: tuple[str, ...]
    make: Callable[[], bytes]


def _checked(
    prover: Prover,
    graphs: dict[Precision, bytes],
    nearer: Mapping[Precision, Sequence[_Nearer]],
    kept: dict[Precision, Kept],
) -> Iterator[tuple[Precision, list[GateResult]]]:
    """The gates of each graph; of one that fails, those of the nearer one that takes its place."""
    for precision, results in prover.check_graphs(dict(graphs)):
        for other in nearer.get(precision, ()):
            if not (failures := _failures(results)):
                break
            found = kept.get(precision, Kept({}, None))
            why = {**found.for_gates, ", ".join(other.nodes): failures}
            kept[precision] = dataclasses.replace(found, for_gates=why)
            graphs[precision] = other.make()
            ((_, results),) = prover.check_graphs({precision: graphs[precision]})
        yield precision, results


def _graphs(
    subject: Subject, options: ExportOptions, progress: Progress | None
) -> tuple[
    dict[Precision, bytes],
    dict[Precision, Kept],
    list[LeftOut],
    dict[Precision, list[_Nearer]],
]:
    """The graph in every precision, what stays float32 in it, and what cannot be made.

    At last what takes the place of one that fails, one after the other, where there is such.
    """
    single = subject.to_onnx(rewrite(subject.twin(), options.without))
    check_any_batch(subject, single)
    wanted = [p for p in PRECISIONS if p == "fp32" or p in options.precisions]
    calibration = _calibration(subject)
    kept: dict[Precision, Kept] = {}
    graphs: dict[Precision, bytes] = {}
    left_out: list[LeftOut] = []
    nearer: dict[Precision, list[_Nearer]] = {}
    for p in wanted:
        try:
            exact = in_precision(single, p, options.without)
            keep, kept[p] = _kept(subject, exact, p, calibration, options, progress)
            graphs[p] = convert(exact, p, keep=keep, calibration=calibration)
            if p in ("int8", "fp8") and options.min_psnr_db is None:  # or a search has decided
                make = partial(convert, exact, p, calibration=calibration)
                nearer[p] = _nearer(exact, keep, make)
        except ExportError as error:
            if p == "fp32":
                raise
            left_out.append(LeftOut(p, str(error)))
    told = {p: found for p, found in kept.items() if found.anything}
    return graphs, told, left_out, nearer


def _nearer(exact: bytes, keep: frozenset[str], make: Callable[..., bytes]) -> list[_Nearer]:
    """What int8 and fp8 leave in float32 if they fail: nothing makes up for what is lost there."""
    found = []
    for nodes in (layers(exact)[-1:], sums(exact)):
        if more := tuple(name for name in nodes if name not in keep):
            keep = keep.union(more)
            found.append(_Nearer(more, partial(make, keep=keep)))
    return found


def _kept(
    subject: Subject,
    exact: bytes,
    precision: Precision,
    calibration: Feed,
    options: ExportOptions,
    progress: Progress | None,
) -> tuple[frozenset[str], Kept]:
    """Nodes of a float32 graph that stay float32 in a variant of it, and why."""
    named = nodes_of(exact, options.keep)
    if precision == "fp32":
        return frozenset(), Kept({}, None)
    beyond = what_overflows(subject, exact) if precision == "fp16" else Overflowing()
    keep = beyond.nodes | named
    found = Kept({}, None)
    if options.min_psnr_db is not None:
        found = keep_worst_layers(
            subject,
            exact,
            precision,
            options.min_psnr_db,
            calibration=calibration,
            keep=keep,
            progress=progress,
        )
    found = dataclasses.replace(found, named=tuple(options.keep), overflowing=beyond.layers)
    return keep.union(found.layers), found


def _calibration(subject: Subject) -> Feed:
    """Latents and labels that no gate looks at."""
    seeds = range(CALIBRATION_SEEDS, CALIBRATION_SEEDS + CALIBRATION_IMAGES)
    y = draw_labels(seeds, subject.num_classes) if subject.num_classes else None
    return draw_inputs(subject.model, seeds, y).feed()


def _require(gates: Sequence[GateResult], where: str) -> None:
    if failed := _failures(gates):
        raise ParityError(f"{where}: what would ship is not what was trained. {failed}")


def _failures(gates: Sequence[GateResult]) -> str:
    """The gates that fail, in words."""
    return "; ".join(
        f"gate '{g.gate}' of {g.artifact}: {g.value:.4g}, expected {g.limit}"
        f"{f' ({g.detail})' if g.detail else ''}"
        for g in gates
        if not g.passed
    )


def _why(precision: Precision, gates: Sequence[GateResult]) -> str:
    """What fails, and the command that would make it pass."""
    return (
        f"{_failures(gates)}. --auto-precision {LEAST_PSNR_DB[precision]:g}dB keeps the layers in"
        " fp32 that need it, --keep LAYER those that you name; or leave it out, with --precision"
    )


def _engines(
    prover: Prover | None,
    graphs: Mapping[Precision, bytes],
    product: Product,
    options: ExportOptions,
    mapping: bytes | None,
) -> tuple[list[BuiltEngine], list[GateResult], list[LeftOut]]:
    """An engine for each precision and target, gates of those that run here, and what fails."""
    engines: list[BuiltEngine] = []
    gates: list[GateResult] = []
    left_out: list[LeftOut] = []
    targets = options.targets or default_targets(product)
    for precision, target in itertools.product(graphs, targets):
        built = build_engine(
            graphs[precision],
            product=product,
            target=target,
            precision=precision,
            profiles=options.profiles,
        )
        results: list[GateResult] = []
        if prover:
            built, results = _run_engine(prover, built, graphs[precision], mapping)
        if failed := _failures(results):
            entry = built.entry
            name = f"{entry.product} {entry.target} {precision}"
            left_out.append(LeftOut(name, f"{failed}. Leave its precision out", results))
        else:
            engines.append(built)
            gates += results
    return engines, gates, left_out


def _run_engine(
    prover: Prover, built: BuiltEngine, graph: bytes, mapping: bytes | None
) -> tuple[BuiltEngine, list[GateResult]]:
    """Check an engine where it can run; elsewhere it stays "pending"."""
    try:
        backend = TensorRTBackend(built.plan, built.entry, prover.subject.model, "auto")
    except BackendUnavailable as reason:
        log.info("engine for %s is pending: %s", built.entry.target, reason)
        return built, []
    entry = built.entry
    with contextlib.closing(backend):
        artifact = f"{entry.product} {entry.target} {entry.precision}"
        gates = prover.check_backend(backend, artifact)
        if mapping:
            gates.append(style_gate(prover.subject, mapping, backend, artifact))
        report = of_engine(*backend.inspect(), graph, built.report)
    verified = entry.model_copy(update={"status": "verified"})
    return dataclasses.replace(built, entry=verified, report=report), gates


def _discriminator(
    subject: Subject,
    graph: bytes,
    options: ExportOptions,
    progress: Progress | None,
) -> Shipped:
    """The run's discriminator, calibrated on held-out images, or else on its own."""
    place = options.held_out or options.data or subject.data
    assert place is not None, "only a run has a discriminator"
    return ship_discriminator(
        subject,
        OnnxRuntimeBackend(graph, "cpu", "fp32"),
        open_dataset(place, resolution=subject.model.resolution, labelled=subject.labelled),
        held_out=options.held_out is not None,
        num_images=options.num_images,
        progress=progress,
    )
