"""The same seeds through torch in float64 and through what ships, compared image by image.

On [-1, 1] before rounding, and in uint8 steps after; the limits are those of
`ganexport.proof.rounding`.
"""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import onnx
from numpy.typing import NDArray

from ganexport.graph.large import resaved
from ganexport.graph.precision import emulate
from ganexport.graph.tracing import float_images
from ganexport.proof.batches import where_batches_differ
from ganexport.proof.confidence import mean_interval, psnr_interval, remark
from ganexport.proof.reference import Reference, batches, reference_of
from ganexport.proof.rounding import (
    LEAST_PSNR_DB,
    MOST_TIMES,
    Deviation,
    least_uint8_psnr_db,
    psnr_db,
    uint8_images,
)
from ganexport.subjects.contract import LARGE
from ganexport.subjects.subject import Subject
from ganinfer.backends._base import Backend
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.golden import pixel_differences
from ganinfer.bundle.manifest import GateResult, Interval, Precision, gate_result
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs

FEW = (slice(3, 4), slice(5, 7), slice(8, 11))  # alone, in twos, in threes, at some place


def numeric_gates(subject: Subject, graph: bytes, precision: Precision) -> list[GateResult]:
    """Compare a graph, run by onnxruntime on the CPU, with torch in float64.

    In fp16 and bf16 that is an emulation; onnxruntime computes fp16 itself in float32.

    Args:
        subject: the reference.
        graph: ONNX file of a `SamplingGraph`.
        precision: of the graph; chooses the gates.

    Returns:
        One result a gate.
    """
    reference = reference_of(subject)
    graph, artifact = runnable(graph, precision)
    with closing(_FloatImages(graph)) as floats:  # soon, for the sake of memory
        shipped = floats(subject, reference.inputs)
        if shipped.shape != reference.images.shape:
            return [_other_shape(artifact, reference.images.shape[1:], len(shipped))]
        results = _float_gates(reference, shipped, precision, artifact)
        results.append(_few_gate(subject, floats, shipped, precision, artifact))
        del shipped
    with closing(OnnxRuntimeBackend(graph, "cpu", precision)) as backend:
        return results + pixel_gates(subject, backend, artifact)


def accuracy(
    subject: Subject, graph: bytes, precision: Precision, *, num_images: int
) -> tuple[float, float]:
    """PSNR in dB, peak 2, of a graph's images before rounding: of all, and of the worst image."""
    inputs, images = reference_of(subject).first(num_images)
    found = Deviation.of(_FloatImages(runnable(graph, precision)[0])(subject, inputs), images)
    return psnr_db(found.rms), psnr_db(found.worst)


def runnable(graph: bytes, precision: Precision) -> tuple[bytes, str]:
    """A graph that computes on onnxruntime's CPU as hardware does, and what a gate calls it."""
    if precision in ("fp16", "bf16"):
        return emulate(graph, precision), f"onnx {precision} (emulated)"
    return graph, f"onnx {precision}"


def pixel_gates(subject: Subject, backend: Backend, artifact: str) -> list[GateResult]:
    """Compare a backend's uint8 images with those of torch in float64; one result a gate."""
    reference = reference_of(subject)
    expected = uint8_images(reference.images)
    found = run_backend(subject, backend, reference.inputs)
    if found.shape != expected.shape:
        return [_other_shape(artifact, expected.shape[1:], len(found))]
    precision: Precision = backend.precision  # type: ignore[assignment]
    limits, count = reference.allowed.pixels(precision), len(found)
    steps, share, _ = pixel_differences(found, expected)
    results = []
    if limits.max_steps is not None:
        results.append(_at_most(artifact, "max uint8 step", steps, limits.max_steps, count))
    if limits.max_share is not None:
        interval = mean_interval(found != expected)
        results.append(_at_most(artifact, "pixels off", share, limits.max_share, count, interval))
    if limits.min_psnr_db is not None:
        squares = np.stack(  # of an image at a time, to save memory
            [
                np.mean((one.astype(np.float32) - other) ** 2, dtype=np.float64)
                for one, other in zip(found, expected, strict=True)
            ]
        )
        least = least_uint8_psnr_db(LEAST_PSNR_DB[precision])
        results += [
            _psnr_gate(artifact, "PSNR uint8, dB", squares, 255.0, least),
            _at_least(
                artifact,
                "worst image uint8, dB",
                psnr_db(2 * float(np.sqrt(squares.max())) / 255),
                limits.min_psnr_db,
                count,
                f"image {int(squares.argmax())}",
            ),
        ]
    return results


def run_backend(subject: Subject, backend: Backend, inputs: Inputs) -> Images:
    """What ships: uint8 (N, H, W, C), in the batches that `Sampler` sends."""
    return np.concatenate([backend.run(part) for part in batches(subject, inputs)])


def _float_gates(
    reference: Reference, shipped: NDArray[np.float32], precision: Precision, artifact: str
) -> list[GateResult]:
    """Of the images before rounding."""
    allowed, count = reference.allowed, len(shipped)
    found = Deviation.of(shipped, reference.images)
    results = []
    if precision in MOST_TIMES:
        foretold, times = allowed.foretold(precision), MOST_TIMES[precision]
        own = f"{foretold:.3g} is its own rounding"
        detail = f"{found.rms:.3g} from torch in {reference.of}; {own}"
        ratio = found.rms / foretold
        results.append(_at_most(artifact, "error / rounding", ratio, times, count, detail=detail))
    if precision == "fp32":
        results.append(
            _at_most(artifact, "max error", found.largest, float(f"{allowed.largest:.3g}"), count)
        )
    if precision in LEAST_PSNR_DB:
        least = LEAST_PSNR_DB[precision]
        results.append(_psnr_gate(artifact, "PSNR, dB", found.squares, 2.0, least))
    return results


def _few_gate(
    subject: Subject,
    floats: "_FloatImages",
    shipped: NDArray[np.float32],
    precision: Precision,
    artifact: str,
) -> GateResult:
    """Is an image alone, in twos and in threes the one that it is in a batch?"""
    reference = reference_of(subject)
    parts = FEW[:2] if shipped[0, 0].size > LARGE else FEW  # for the sake of memory
    few = [floats.at_once(reference.inputs.rows(part.start, part.stop)) for part in parts]
    many = np.concatenate([shipped[part] for part in parts])
    found = psnr_db(Deviation.of(np.concatenate(few), many).rms)
    least = reference.allowed.least_psnr_db(precision)
    detail = "" if found >= least else where_batches_differ(floats.graph, reference.inputs)
    gate = "alone and in a batch, dB"
    return _at_least(artifact, gate, found, least, len(many), detail)


class _FloatImages:
    """Images before rounding: the same file with that tensor as its output."""

    def __init__(self, graph: bytes) -> None:
        self.graph = graph
        model = onnx.load_from_string(graph)
        name = float_images(model)
        typed = onnx.shape_inference.infer_shapes(model).graph
        value = next(v for v in typed.value_info if v.name == name)
        del model.graph.output[:]
        model.graph.output.append(value)
        self._backend = OnnxRuntimeBackend(resaved(model, graph), "cpu", "fp32")

    def __call__(self, subject: Subject, inputs: Inputs) -> NDArray[np.float32]:
        """float32 (N, C, H, W)."""
        return run_backend(subject, self._backend, inputs)  # type: ignore[return-value]

    def at_once(self, inputs: Inputs) -> NDArray[np.float32]:
        """The same as one batch."""
        return self._backend.run(inputs)  # type: ignore[return-value]

    def close(self) -> None:
        """Free the session."""
        self._backend.close()


def _at_most(
    artifact: str,
    gate: str,
    value: float,
    limit: float,
    num_images: int,
    interval: Interval | None = None,
    detail: str = "",
) -> GateResult:
    return gate_result(
        artifact,
        gate,
        value,
        f"<= {limit:.3g}",
        value <= limit,
        "; ".join(filter(None, [detail, remark(interval, limit)])),
        num_images=num_images,
        interval=interval,
    )


def _at_least(
    artifact: str, gate: str, value: float, limit: float, num_images: int, detail: str
) -> GateResult:
    passed = value >= limit
    said = "" if passed else detail
    return gate_result(
        artifact, gate, value, f">= {limit:.3g}", passed, said, num_images=num_images
    )


def _psnr_gate(
    artifact: str, gate: str, squares: NDArray[np.float64], peak: float, limit: float
) -> GateResult:
    """Of mean squared errors (N,) of images."""
    psnr = psnr_db(2 * float(np.sqrt(np.mean(squares))) / peak)
    interval = psnr_interval(squares, peak=peak) if np.isfinite(squares).all() else None
    return gate_result(
        artifact,
        gate,
        psnr,
        f">= {limit:.3g}",
        psnr >= limit,
        remark(interval, limit),
        num_images=len(squares),
        interval=interval,
    )


def _other_shape(artifact: str, expected: Sequence[int], num_images: int) -> GateResult:
    limit = f"equal to {tuple(expected)}"
    return gate_result(artifact, "image shape", 0.0, limit, False, num_images=num_images)
