"""What a bundle holds: its files, and a manifest that says so."""

import importlib.metadata
import io
import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ganexport.bundling.discriminator import Shipped
from ganexport.engines.tensorrt import BuiltEngine
from ganexport.graph.macs import macs_per_image
from ganexport.graph.precision import PRECISIONS
from ganexport.proof.confidence import NUM_RESAMPLINGS
from ganexport.proof.numeric import run_backend
from ganexport.proof.parity import LeftOut, Prover
from ganexport.proof.reference import exact_images, num_probes, probes, reference_of
from ganexport.proof.rounding import uint8_images
from ganexport.proof.sensitivity import Kept
from ganexport.subjects.contract import LARGE
from ganexport.subjects.subject import Subject
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.large_onnx import LargeOnnx
from ganinfer.bundle.manifest import (
    GateResult,
    Golden,
    Graph,
    Manifest,
    Precision,
    WitnessFiles,
    format_version,
)
from ganinfer.drawing.images import encode_png, grid
from ganinfer.drawing.inputs import draw_inputs
from gantrain.runs.samples import sample_sheet

NUM_GOLDEN, FEW_GOLDEN = 16, 4  # few of large images, which every host draws as it opens
_PREVIEW_PIXELS, _PREVIEW_SIDE = 16 << 20, 256  # drawn for it; of an image in it
WITNESS_IMAGES = 2000  # at most
MAPPING = "onnx/mapping.onnx"


def assemble(
    subject: Subject,
    graphs: dict[Precision, bytes],
    engines: Sequence[BuiltEngine],
    gates: list[GateResult],
    prover: Prover | None,
    kept: Mapping[Precision, Kept],
    left_out: Sequence[LeftOut],
    judge: Shipped | None,
    mapping: bytes | None = None,
    license_id: str | None = None,
) -> tuple[dict[str, bytes], Manifest]:
    """The bundle's files, and a manifest that lacks only their fingerprints."""
    height, width, _ = subject.model.shape
    num_golden = FEW_GOLDEN if height * width > LARGE else NUM_GOLDEN
    inputs, truncations = probes(subject, num_golden)
    limits = {}
    if prover:
        reference = reference_of(subject)
        golden = reference.images[:num_golden]
        limits = {p: reference.allowed.pixels(p) for p in PRECISIONS}
    else:
        golden = exact_images(subject, inputs)
    buffer = io.BytesIO()
    np.save(buffer, uint8_images(golden), allow_pickle=False)
    files = {f"onnx/{precision}.onnx": data for precision, data in graphs.items()}
    beside = [graph for graph in graphs.values() if isinstance(graph, LargeOnnx)]
    files |= {f"onnx/{graph.location}": graph.weights for graph in beside}
    for engine in engines:
        files[engine.entry.path] = engine.plan
        files[engine.entry.report] = engine.report.model_dump_json(indent=1).encode() + b"\n"
    if mapping is not None:
        files[MAPPING] = mapping
    if judge is not None:
        files[judge.entry.path] = judge.file
    files["golden/images.npy"] = buffer.getvalue()
    files["preview.png"] = _preview(subject, graphs["fp32"])
    witness = None
    if prover:
        found = prover.witness(WITNESS_IMAGES)
        files["parity.json"] = _parity_json(prover, gates, kept, left_out, found.num_images)
        witness = WitnessFiles(
            moments="witness/moments.f64",
            extractor="witness/extractor.onnx",
            num_images=found.num_images,
            num_groups=len(found.floors),
            num_features=found.means.shape[1],
        )
        files[witness.moments] = found.save()
        files[witness.extractor] = prover.extractor_graph()
    manifest = Manifest(
        format_version=format_version(subject.model, weights_beside=bool(beside)),
        model=subject.model.model_copy(update={"macs": macs_per_image(graphs["fp32"])}),
        graphs=[Graph(path=f"onnx/{p}.onnx", precision=p) for p in graphs],
        mapping=None if mapping is None else MAPPING,
        engines=[engine.entry for engine in engines],
        golden=Golden(
            path="golden/images.npy",
            seeds=list(range(num_golden)),
            labels=None if inputs.labels is None else inputs.labels.tolist(),
            truncations=truncations,
            limits=limits,
        ),
        witness=witness,
        discriminator=None if judge is None else judge.entry,
        source=subject.source,
        license=license_id,
        tools=_tool_versions(),
        parity=gates,
        verified=prover is not None,
        files={},
    )
    return files, manifest


def _tool_versions() -> dict[str, str]:
    """Versions of what made a bundle."""
    names = ("ganpipe", "torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _preview(subject: Subject, graph: bytes) -> bytes:
    """A grid of what ships; of large images fewer rows, and smaller."""
    seeds, labels, columns = sample_sheet(subject.num_classes)
    height, width, _ = subject.model.shape
    rows = max(1, _PREVIEW_PIXELS // (columns * height * width))
    inputs = draw_inputs(subject.model, seeds, labels).rows(0, rows * columns)
    images = run_backend(subject, OnnxRuntimeBackend(graph, "cpu", "fp32"), inputs)
    small = [_shrunk(image, -(-max(height, width) // _PREVIEW_SIDE)) for image in images]
    return encode_png(grid(np.stack(small), columns=columns))


def _shrunk(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The means of squares of so many pixels; what makes no whole square is cut off."""
    height, width, channels = image.shape
    rows, columns = height // factor, width // factor
    whole = image[: rows * factor, : columns * factor]
    squares = whole.reshape(rows, factor, columns, factor, channels)
    means: NDArray[np.float64] = squares.mean(axis=(1, 3))
    return means.round().astype(np.uint8)


def _parity_json(
    prover: Prover,
    gates: list[GateResult],
    kept: Mapping[Precision, Kept],
    left_out: Sequence[LeftOut],
    num_witness: int,
) -> bytes:
    record = {
        "num_images_numeric": num_probes(prover.subject),
        "num_images_distributional": prover.num_images,
        "num_images_witness": num_witness,
        "num_resamplings": NUM_RESAMPLINGS,
        "extractor": prover.extractor.name,
        "dataset_sha256": prover.reference.sha256 if prover.reference else None,
        "kept_in_fp32": {precision: vars(found) for precision, found in kept.items()},
        "gates": [gate.model_dump() for gate in gates],
        "left_out": [
            {"artifact": one.artifact, "why": one.why, "gates": [g.model_dump() for g in one.gates]}
            for one in left_out
        ],
    }
    return (json.dumps(record, indent=1) + "\n").encode()
