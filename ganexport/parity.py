"""Is what ships what was trained? The gates that a bundle passes before it is written.

Numeric: the same seeds and labels through torch in float32 and through what ships, compared on
[-1, 1] before rounding (absolute errors; relative ones explode near zero) and in uint8 steps after.
Distributional, with A and B two sets of seeds: FID(data, torch A) against FID(data, shipped A), and
the paired distance FID(torch A, shipped A) against the sampling floor FID(torch A, torch B). The
latter is a distance of the network to itself under other seeds; a faithful copy lies far below it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ganexport.graph import float_images
from ganinfer.backends import Backend
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle import GateResult
from ganinfer.golden import PIXEL_GATES, pixel_differences
from ganinfer.images import Images, to_uint8
from ganinfer.latents import draw_labels, draw_latents
from gantrain.checkpoint import TrainedGenerator
from gantrain.metrics._features import Features
from gantrain.metrics._reference import Reference
from gantrain.metrics._statistics import FeatureStatistics, frechet_distance

Latents = NDArray[np.float32]
Labels = NDArray[np.int64] | None
Progress = Callable[[str, int, int], None]  # what is being done, images done, images in all

NUMERIC_IMAGES = 512
_BATCH = 64
_SEEDS_B = 1 << 32  # where the second set of seeds starts


@dataclass(frozen=True)
class FloatGate:
    """On [-1, 1] before rounding: largest absolute error, or least PSNR with peak 2, in dB."""

    max_error: float | None = None
    min_psnr_db: float | None = None


FLOAT_GATES = {
    "fp32": FloatGate(max_error=1e-5),
    "fp16": FloatGate(min_psnr_db=55.0),
}
MAX_FID_CHANGE = 0.05  # or 1 % of the FID, if that is more
MAX_FID_CHANGE_SHARE = 0.01
MAX_PAIRED_SHARE = 0.10  # of the sampling floor


def numeric_gates(
    trained: TrainedGenerator, graph: bytes, precision: str, *, num_images: int = NUMERIC_IMAGES
) -> list[GateResult]:
    """Compare a graph, run by onnxruntime on the CPU, with torch in float32.

    Args:
        trained: the reference, straight from its checkpoint.
        graph: ONNX file of a `SamplingGraph`.
        precision: of the graph; chooses the gates.
        num_images: for the seeds 0, 1, ..., a label of each class in turn.

    Returns:
        One result a gate.
    """
    z, labels, reference = _numeric_reference(trained, num_images)
    shipped = _run_float_output(graph, z, labels)
    artifact = f"onnx {precision}"
    if shipped.shape != reference.shape:
        return [_result(artifact, "image shape", 0.0, f"equal to {reference.shape[1:]}", False)]
    error = np.abs(shipped.astype(np.float64) - reference)
    bound = FLOAT_GATES[precision]
    results = []
    if bound.max_error is not None:
        worst, limit = float(error.max()), bound.max_error
        results.append(_result(artifact, "max error", worst, f"<= {limit:g}", worst <= limit))
    if bound.min_psnr_db is not None:
        psnr, limit = _psnr(float(np.mean(error**2)), peak=2.0), bound.min_psnr_db
        results.append(_result(artifact, "PSNR, dB", psnr, f">= {limit:g}", psnr >= limit))
    backend = OnnxRuntimeBackend(graph, "cpu", precision)
    return results + pixel_gates(trained, backend, artifact, num_images=num_images)


def pixel_gates(
    trained: TrainedGenerator,
    backend: Backend,
    artifact: str,
    *,
    num_images: int = NUMERIC_IMAGES,
) -> list[GateResult]:
    """Compare a backend's uint8 images with those of torch in float32; one result a gate."""
    z, labels, reference = _numeric_reference(trained, num_images)
    expected = to_uint8(reference).transpose(0, 2, 3, 1)
    found = run_backend(backend, z, labels)
    if found.shape != expected.shape:
        return [_result(artifact, "image shape", 0.0, f"equal to {expected.shape[1:]}", False)]
    gate = PIXEL_GATES[backend.precision]
    steps, share, psnr = pixel_differences(found, expected)
    limit = gate.max_steps
    results = [_result(artifact, "max uint8 step", steps, f"<= {limit}", steps <= limit)]
    if gate.min_psnr_db is not None:
        results.append(
            _result(
                artifact,
                "PSNR uint8, dB",
                psnr,
                f">= {gate.min_psnr_db:g}",
                psnr >= gate.min_psnr_db,
            )
        )
    if gate.max_share is not None:
        results.append(
            _result(
                artifact,
                "pixels off",
                share,
                f"<= {gate.max_share:g}",
                share <= gate.max_share,
            )
        )
    return results


def _numeric_reference(
    trained: TrainedGenerator, num_images: int
) -> tuple[Latents, Labels, NDArray[np.float32]]:
    """Latents, labels (each class in turn) and torch's images for the seeds 0, 1, ..."""
    z = latents(trained, range(num_images))
    labels = np.arange(num_images) % len(trained.classes) if trained.classes else None
    return z, labels, run_torch(trained, z, labels)


def _result(
    artifact: str, gate: str, value: float, limit: str, passed: bool, detail: str = ""
) -> GateResult:
    # JSON has neither infinity nor NaN; 999 stands for both.
    finite = float(value) if math.isfinite(value) else 999.0
    return GateResult(
        artifact=artifact, gate=gate, value=finite, limit=limit, passed=bool(passed), detail=detail
    )


@dataclass
class Baseline:
    """What torch makes of the seeds A and B, in features; computed once for all variants.

    classes: per-class statistics; empty for an unconditional model.
    """

    num_images: int
    real: FeatureStatistics
    torch_a: FeatureStatistics
    torch_b: FeatureStatistics
    classes_a: list[FeatureStatistics]
    classes_b: list[FeatureStatistics]


def torch_baseline(
    trained: TrainedGenerator,
    reference: Reference,
    *,
    num_images: int,
    progress: Progress | None = None,
) -> Baseline:
    """Draw `num_images` for the seeds A and for the seeds B in torch, and measure them."""
    real = reference.statistics
    sets = []
    for name, first_seed in (("torch, seeds A", 0), ("torch, seeds B", _SEEDS_B)):
        batches = (
            (to_uint8(run_torch(trained, z, y)).transpose(0, 2, 3, 1), y)
            for z, y in _requests(trained, first_seed, num_images)
        )
        sets.append(_statistics(batches, reference, name, num_images, progress))
    (torch_a, classes_a), (torch_b, classes_b) = sets
    return Baseline(num_images, real, torch_a, torch_b, classes_a, classes_b)


def distributional_gates(
    trained: TrainedGenerator,
    reference: Reference,
    baseline: Baseline,
    graph: bytes,
    precision: str,
    *,
    progress: Progress | None = None,
) -> list[GateResult]:
    """Compare the distribution of a graph's images with torch's; see the module's docstring."""
    backend = OnnxRuntimeBackend(graph, "cpu", precision)
    artifact = f"onnx {precision}"
    batches = (
        (run_backend(backend, z, y), y) for z, y in _requests(trained, 0, baseline.num_images)
    )
    shipped, classes = _statistics(batches, reference, artifact, baseline.num_images, progress)
    fid_torch = frechet_distance(baseline.real, baseline.torch_a)
    fid_shipped = frechet_distance(baseline.real, shipped)
    change = abs(fid_shipped - fid_torch)
    allowed = max(MAX_FID_CHANGE, MAX_FID_CHANGE_SHARE * fid_torch)
    paired = frechet_distance(baseline.torch_a, shipped) / frechet_distance(
        baseline.torch_a, baseline.torch_b
    )
    results = [
        _result(
            artifact,
            "FID change",
            change,
            f"<= {allowed:.3g}",
            change <= allowed,
            f"{fid_torch:.4f} -> {fid_shipped:.4f}",
        ),
        _result(
            artifact,
            "paired FID / floor",
            paired,
            f"<= {MAX_PAIRED_SHARE:g}",
            paired <= MAX_PAIRED_SHARE,
        ),
    ]
    if classes:
        shares = [
            frechet_distance(a, s) / frechet_distance(a, b)
            for a, b, s in zip(baseline.classes_a, baseline.classes_b, classes, strict=True)
        ]
        worst = int(np.argmax(shares))
        results.append(
            _result(
                artifact,
                "paired, worst class",
                shares[worst],
                f"<= {MAX_PAIRED_SHARE:g}",
                shares[worst] <= MAX_PAIRED_SHARE,
                f"class {trained.classes[worst]}",
            )
        )
    return results


def latents(trained: TrainedGenerator, seeds: range) -> Latents:
    """The untruncated latents (N, Z) that the SDK draws for these seeds."""
    network = trained.network
    return draw_latents(seeds, network.z_dim, distribution=network.z_distribution)


@torch.no_grad()
def run_torch(trained: TrainedGenerator, z: Latents, y: Labels) -> NDArray[np.float32]:
    """The reference: the checkpoint's own network, float32 (N, C, H, W), before rounding."""
    parts = [
        trained.network(
            torch.from_numpy(z[i : i + _BATCH]),
            None if y is None else torch.from_numpy(y[i : i + _BATCH]),
        ).numpy()
        for i in range(0, len(z), _BATCH)
    ]
    return np.concatenate(parts)


def run_backend(backend: Backend, z: Latents, y: Labels) -> Images:
    """What ships: uint8 (N, H, W, C)."""
    return np.concatenate(
        [
            backend.run(z[i : i + _BATCH], None if y is None else y[i : i + _BATCH])
            for i in range(0, len(z), _BATCH)
        ]
    )


def _run_float_output(graph: bytes, z: Latents, y: Labels) -> NDArray[np.float32]:
    """The shipped graph's image before rounding: the same file with that tensor as its output."""
    model = onnx.load_from_string(graph)
    name = float_images(model)
    typed = onnx.shape_inference.infer_shapes(model).graph
    value = next(v for v in typed.value_info if v.name == name)
    del model.graph.output[:]
    model.graph.output.append(value)
    exposed = OnnxRuntimeBackend(model.SerializeToString(), "cpu", "fp32")
    return run_backend(exposed, z, y)  # type: ignore[return-value]


def _requests(
    trained: TrainedGenerator, first_seed: int, num_images: int
) -> Iterator[tuple[Latents, Labels]]:
    num_classes = len(trained.classes)
    for start in range(first_seed, first_seed + num_images, 500):
        seeds = range(start, min(start + 500, first_seed + num_images))
        yield latents(trained, seeds), draw_labels(seeds, num_classes) if num_classes else None


def _statistics(
    batches: Iterator[tuple[Images, Labels]],
    reference: Reference,
    name: str,
    num_images: int,
    progress: Progress | None,
) -> tuple[FeatureStatistics, list[FeatureStatistics]]:
    """Feature statistics over all images, and of each class."""
    num_features = reference.extractor.num_features
    everything = FeatureStatistics(num_features)
    classes = [FeatureStatistics(num_features) for _ in reference.dataset.classes]
    done = 0
    for images, labels in batches:
        seen: Features = reference.extractor(images, labels)
        everything.update(seen.features)
        for number, statistics in enumerate(classes):
            statistics.update(seen.features[labels == number])
        done += len(images)
        if progress:
            progress(name, done, num_images)
    return everything, classes


def _psnr(mean_square: float, *, peak: float) -> float:
    return math.inf if mean_square == 0 else 10 * math.log10(peak**2 / mean_square)
