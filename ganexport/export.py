"""A run -> a verified bundle."""

import dataclasses
import importlib.metadata
import io
import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ganexport import graph, parity
from ganexport.engines.tensorrt import (
    BuiltEngine,
    Profile,
    build_engine,
    default_targets,
    pick_product,
)
from ganexport.precision import PRECISIONS, convert
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.backends.tensorrt import TensorRTBackend
from ganinfer.bundle import (
    FORMAT_VERSION,
    GateResult,
    Golden,
    Graph,
    Manifest,
    Model,
    Precision,
    Source,
    check_destination,
    write_bundle,
)
from ganinfer.errors import BackendUnavailable, CheckpointError, ExportError, ParityError
from ganinfer.images import encode_png, grid, to_uint8
from gantrain.checkpoint import TrainedGenerator, load_generator
from gantrain.data import Dataset
from gantrain.evaluate import open_reference
from gantrain.samples import sample_sheet

log = logging.getLogger(__name__)

NUM_GOLDEN = 16


@dataclass(frozen=True)
class Exported:
    """What `export_run` wrote."""

    path: Path
    gates: list[GateResult]
    engines: list[BuiltEngine]


def export_run(
    run: Path,
    destination: Path,
    *,
    precisions: Sequence[str] = ("fp32", "fp16"),
    tensorrt: bool = False,
    targets: Sequence[str] = (),
    product: str = "auto",
    profile: Profile = (1, 64, 256),
    data: Path | None = None,
    num_images: int = 10_000,
    verify: bool = True,
    single_file: bool = False,
    progress: parity.Progress | None = None,
) -> Exported:
    """Export the EMA generator of a run's newest checkpoint; prove the copy, then write it.

    Args:
        run: folder of a run, or one checkpoint file.
        destination: the bundle; an older bundle there is replaced.
        precisions: ONNX variants; "fp32" is always among them.
        tensorrt: also build engines, one for each target and precision.
        targets: what engines are built for; see `build_engine`.
        product: "auto", "tensorrt" or "tensorrt_rtx".
        profile: smallest, likeliest and largest batch of an engine.
        data: the prepared dataset; by default where the run found it.
        num_images: of each set of the distributional gates.
        verify: False writes a bundle that is marked unverified.
        single_file: write one file instead of a directory.
        progress: called with (what is being done, images done, images in all).

    Returns:
        Where it is, the gates it passed and the engines in it.

    Raises:
        CheckpointError, DataError: the run or its data cannot be used.
        ExportError: the graph or an engine cannot be made.
        ParityError: a gate fails; nothing is written.
    """
    check_destination(destination)
    if unknown := sorted(set(precisions) - set(PRECISIONS)):
        raise ExportError(f"--precision {unknown[0]!r}: expected {', '.join(PRECISIONS)}")
    if len(profile) != 3 or not 1 <= profile[0] <= profile[1] <= profile[2]:
        raise ExportError(f"--profile {profile}: expected smallest:likeliest:largest batch")
    chosen = pick_product(product, targets) if tensorrt else None
    trained = load_generator(run)
    if trained.channels not in (1, 3):
        raise ExportError(f"{run}: {trained.channels} channels; a bundle holds grey or RGB images")
    prover = open_prover(trained, data, num_images, progress) if verify else None

    single = graph.to_onnx(
        graph.bake(trained), z_dim=trained.network.z_dim, num_classes=len(trained.classes)
    )
    wanted = [p for p in PRECISIONS if p == "fp32" or p in precisions]
    graphs = {precision: convert(single, precision) for precision in wanted}
    gates = prover.check_graphs(graphs) if prover else []
    _require(gates, run)
    engines: list[BuiltEngine] = []
    if chosen is not None:
        for precision, target in itertools.product(wanted, targets or default_targets(chosen)):
            built = build_engine(
                graphs[precision],
                product=chosen,
                target=target,
                precision=precision,
                profile=profile,
            )
            if prover:
                built, results = _run_engine(prover, built)
                gates += results
            engines.append(built)
    _require(gates, run)

    files, manifest = _assemble(trained, graphs, engines, gates, verified=verify)
    if prover:
        files["parity.json"] = _parity_json(prover, gates)
    write_bundle(destination, manifest, files, single_file=single_file)
    return Exported(destination, gates, engines)


def open_prover(
    trained: TrainedGenerator,
    data: Path | None,
    num_images: int,
    progress: parity.Progress | None,
) -> parity.Prover:
    """The gates of a generator, with its own dataset seen through its classifier.

    Raises:
        DataError: the data is not where the run found it. CheckpointError: it is other data.
        ExportError: too few images.
    """
    dataset = Dataset(data or trained.dataset_path)
    if dataset.sha256 != trained.dataset_sha256:
        raise CheckpointError(
            f"{dataset.path}: sha256 {dataset.sha256[:12]}..., and the generator was trained on"
            f" {trained.dataset_sha256[:12]}...; give its own dataset with --data"
        )

    reference = open_reference(dataset, progress=progress)
    return parity.Prover(trained, reference, num_images=num_images, progress=progress)


def describe(gates: Sequence[GateResult]) -> str:
    """Failed gates in words."""
    return "; ".join(
        f"gate '{g.gate}' of {g.artifact}: {g.value:.4g}, expected {g.limit}"
        f"{f' ({g.detail})' if g.detail else ''}"
        for g in gates
    )


def _require(gates: Sequence[GateResult], run: Path) -> None:
    if failed := [gate for gate in gates if not gate.passed]:
        raise ParityError(f"{run}: what would ship is not what was trained. {describe(failed)}")


def _run_engine(prover: parity.Prover, built: BuiltEngine) -> tuple[BuiltEngine, list[GateResult]]:
    """Check an engine where it can run; elsewhere it stays "pending"."""
    try:
        backend = TensorRTBackend(built.plan, built.entry, _model(prover.trained), "auto")
    except BackendUnavailable as reason:
        log.info("engine for %s is pending: %s", built.entry.target, reason)
        return built, []
    entry = built.entry
    gates = prover.check_backend(backend, f"{entry.product} {entry.target} {entry.precision}")
    backend.close()
    verified = entry.model_copy(update={"status": "verified"})
    return dataclasses.replace(built, entry=verified), gates


def _model(trained: TrainedGenerator) -> Model:
    normal = trained.network.z_distribution == "normal"
    return Model(
        family=trained.config.model,
        resolution=trained.resolution,
        channels=1 if trained.channels == 1 else 3,
        classes=trained.classes,
        z_dim=trained.network.z_dim,
        z_distribution=trained.network.z_distribution,
        truncation_modes=["resample", "scale"] if normal else [],
        default_truncation=trained.config.train.truncation,
    )


def _assemble(
    trained: TrainedGenerator,
    graphs: dict[Precision, bytes],
    engines: Sequence[BuiltEngine],
    gates: list[GateResult],
    *,
    verified: bool,
) -> tuple[dict[str, bytes], Manifest]:
    """The bundle's files, and a manifest that lacks only their fingerprints."""
    num_classes = len(trained.classes)
    golden_labels = [n % num_classes for n in range(NUM_GOLDEN)] if num_classes else None
    golden = parity.run_torch(
        trained,
        parity.latents(trained, range(NUM_GOLDEN)),
        None if golden_labels is None else np.array(golden_labels),
    )
    buffer = io.BytesIO()
    np.save(buffer, to_uint8(golden).transpose(0, 2, 3, 1), allow_pickle=False)
    files = {f"onnx/{precision}.onnx": data for precision, data in graphs.items()}
    files |= {engine.entry.path: engine.plan for engine in engines}
    files["golden/images.npy"] = buffer.getvalue()
    files["preview.png"] = _preview(trained, graphs["fp32"])
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        model=_model(trained),
        graphs=[Graph(path=f"onnx/{p}.onnx", precision=p) for p in graphs],
        engines=[engine.entry for engine in engines],
        golden=Golden(
            path="golden/images.npy", seeds=list(range(NUM_GOLDEN)), labels=golden_labels
        ),
        source=Source(
            checkpoint_sha256=trained.sha256,
            images_seen=trained.images_seen,
            ema=True,
            dataset_sha256=trained.dataset_sha256,
            dataset_path=trained.config.data.path,
            config=trained.config.as_dict(),
        ),
        tools=tool_versions(),
        parity=gates,
        verified=verified,
        files={},
    )
    return files, manifest


def tool_versions() -> dict[str, str]:
    """Versions of what made a bundle."""
    names = ("ganpipe", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _preview(trained: TrainedGenerator, graph: bytes) -> bytes:
    """A grid of what ships."""
    seeds, labels, columns = sample_sheet(len(trained.classes))
    backend = OnnxRuntimeBackend(graph, "cpu", "fp32")
    images = parity.run_backend(backend, parity.latents(trained, seeds), labels)
    return encode_png(grid(images, columns=columns))


def _parity_json(prover: parity.Prover, gates: list[GateResult]) -> bytes:
    record = {
        "num_images_numeric": parity.NUMERIC_IMAGES,
        "num_images_distributional": prover.num_images,
        "extractor": prover.reference.extractor.name,
        "dataset_sha256": prover.reference.dataset.sha256,
        "gates": [gate.model_dump() for gate in gates],
    }
    return (json.dumps(record, indent=1) + "\n").encode()
