"""The same seeds through torch in float32 and through what ships, compared image by image.

On [-1, 1] before rounding (absolute errors; relative ones explode near zero), and in uint8 steps
after.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ganexport.graph.precision import emulate
from ganexport.graph.tracing import float_images
from ganexport.proof.confidence import mean_interval, psnr_interval, remark
from ganexport.subjects.subject import Subject
from ganinfer.backends._base import Backend
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.golden import PIXEL_GATES, pixel_differences
from ganinfer.bundle.manifest import GateResult, Interval, Precision, gate_result
from ganinfer.drawing.images import Images, to_uint8
from ganinfer.drawing.inputs import Inputs, draw_inputs

NUMERIC_IMAGES = 512


@dataclass(frozen=True)
class FloatGate:
    """On [-1, 1] before rounding: largest absolute error, or least PSNR with peak 2, in dB."""

    max_error: float | None = None
    min_psnr_db: float | None = None


FLOAT_GATES = {
    "fp32": FloatGate(max_error=1e-5),
    "fp16": FloatGate(min_psnr_db=55.0),
    "bf16": FloatGate(min_psnr_db=40.0),
    "int8": FloatGate(min_psnr_db=35.0),
    "fp8": FloatGate(min_psnr_db=35.0),
}


def numeric_gates(
    subject: Subject,
    graph: bytes,
    precision: Precision,
    *,
    num_images: int = NUMERIC_IMAGES,
) -> list[GateResult]:
    """Compare a graph, run by onnxruntime on the CPU, with torch in float32.

    In fp16 and bf16 that is an emulation; onnxruntime computes fp16 itself in float32.

    Args:
        subject: the reference.
        graph: ONNX file of a `SamplingGraph`.
        precision: of the graph; chooses the gates.
        num_images: for the seeds 0, 1, ..., a label of each class in turn.

    Returns:
        One result a gate.
    """
    inputs, reference = _numeric_reference(subject, num_images)
    graph, artifact = runnable(graph, precision)
    shipped = _run_float_output(graph, inputs)
    if shipped.shape != reference.shape:
        return [_other_shape(artifact, reference.shape[1:], num_images)]
    error = np.abs(shipped.astype(np.float64) - reference)
    bound = FLOAT_GATES[precision]
    results = []
    if bound.max_error is not None:
        worst = float(error.max())
        results.append(_at_most(artifact, "max error", worst, bound.max_error, num_images))
    if bound.min_psnr_db is not None:
        results.append(_psnr_gate(artifact, "PSNR, dB", error**2, 2.0, bound.min_psnr_db))
    backend = OnnxRuntimeBackend(graph, "cpu", precision)
    return results + pixel_gates(subject, backend, artifact, num_images=num_images)


def numeric_psnr(subject: Subject, graph: bytes, precision: Precision, *, num_images: int) -> float:
    """PSNR in dB, peak 2, of a graph's images before rounding."""
    inputs, reference = _numeric_reference(subject, num_images)
    shipped = _run_float_output(runnable(graph, precision)[0], inputs)
    error = shipped.astype(np.float64) - reference
    return _psnr(float(np.mean(error**2)), peak=2.0)


def runnable(graph: bytes, precision: Precision) -> tuple[bytes, str]:
    """A graph that computes on onnxruntime's CPU as hardware does, and what a gate calls it."""
    if precision in ("fp16", "bf16"):
        return emulate(graph, precision), f"onnx {precision} (emulated)"
    return graph, f"onnx {precision}"


def pixel_gates(
    subject: Subject,
    backend: Backend,
    artifact: str,
    *,
    num_images: int = NUMERIC_IMAGES,
) -> list[GateResult]:
    """Compare a backend's uint8 images with those of torch in float32; one result a gate."""
    inputs, reference = _numeric_reference(subject, num_images)
    expected = to_uint8(reference).transpose(0, 2, 3, 1)
    found = run_backend(backend, inputs)
    if found.shape != expected.shape:
        return [_other_shape(artifact, expected.shape[1:], num_images)]
    gate = PIXEL_GATES[backend.precision]
    steps, share, _ = pixel_differences(found, expected)
    results = [_at_most(artifact, "max uint8 step", steps, gate.max_steps, num_images)]
    if gate.min_psnr_db is not None:
        squares = (found.astype(np.float64) - expected) ** 2
        results.append(_psnr_gate(artifact, "PSNR uint8, dB", squares, 255.0, gate.min_psnr_db))
    if gate.max_share is not None:
        interval = mean_interval(found != expected)
        results.append(
            _at_most(artifact, "pixels off", share, gate.max_share, num_images, interval)
        )
    return results


def probes(subject: Subject, num_images: int) -> tuple[Inputs, list[float | None]]:
    """Inputs that show all a generator can do: each class in turn, and, if it takes a truncation,
    none for the first half of the seeds and five values over its range for the others.

    Returns:
        The inputs for the seeds 0, 1, ..., and the truncation of each; None asks for none.
    """
    model, taken = subject.model, subject.model.truncation_input
    asked: list[float | None] = [None] * num_images
    if taken is not None:
        values = np.linspace(taken.least, taken.untruncated, 6)[:-1].round(3)
        for n in range(num_images // 2, num_images):
            asked[n] = float(values[n % len(values)])
    y = np.arange(num_images) % subject.num_classes if subject.num_classes else None
    parts = [
        draw_inputs(model, [n], None if y is None else y[n : n + 1], truncation)
        for n, truncation in enumerate(asked)
    ]
    return Inputs.joined(parts), asked


@torch.no_grad()
def run_torch(subject: Subject, inputs: Inputs) -> NDArray[np.float32]:
    """The reference: the network itself, float32 (N, C, H, W), before rounding."""
    return np.concatenate([subject(part).numpy() for part in _batches(inputs)])


def run_backend(backend: Backend, inputs: Inputs) -> Images:
    """What ships: uint8 (N, H, W, C), in the batches of 64 that `Sampler` sends."""
    return np.concatenate([backend.run(part) for part in _batches(inputs)])


def _at_most(
    artifact: str,
    gate: str,
    value: float,
    limit: float,
    num_images: int,
    interval: Interval | None = None,
) -> GateResult:
    return gate_result(
        artifact,
        gate,
        value,
        f"<= {limit:g}",
        value <= limit,
        remark(interval, limit),
        num_images=num_images,
        interval=interval,
    )


def _psnr_gate(
    artifact: str, gate: str, squares: NDArray[np.float64], peak: float, limit: float
) -> GateResult:
    """Of squared errors (N, ...)."""
    psnr = _psnr(float(np.mean(squares)), peak=peak)
    interval = psnr_interval(squares, peak=peak)
    return gate_result(
        artifact,
        gate,
        psnr,
        f">= {limit:g}",
        psnr >= limit,
        remark(interval, limit),
        num_images=len(squares),
        interval=interval,
    )


def _other_shape(artifact: str, expected: tuple[int, ...], num_images: int) -> GateResult:
    limit = f"equal to {expected}"
    return gate_result(artifact, "image shape", 0.0, limit, False, num_images=num_images)


@lru_cache(maxsize=2)
def _numeric_reference(subject: Subject, num_images: int) -> tuple[Inputs, NDArray[np.float32]]:
    """Inputs for the seeds 0, 1, ... and torch's images."""
    inputs, _ = probes(subject, num_images)
    return inputs, run_torch(subject, inputs)


def _batches(inputs: Inputs) -> Iterator[Inputs]:
    return (inputs.rows(start, start + 64) for start in range(0, len(inputs), 64))


def _run_float_output(graph: bytes, inputs: Inputs) -> NDArray[np.float32]:
    """The shipped graph's image before rounding: the same file with that tensor as its output."""
    model = onnx.load_from_string(graph)
    name = float_images(model)
    typed = onnx.shape_inference.infer_shapes(model).graph
    value = next(v for v in typed.value_info if v.name == name)
    del model.graph.output[:]
    model.graph.output.append(value)
    exposed = OnnxRuntimeBackend(model.SerializeToString(), "cpu", "fp32")
    return run_backend(exposed, inputs)  # type: ignore[return-value]


def _psnr(mean_square: float, *, peak: float) -> float:
    return math.inf if mean_square == 0 else 10 * math.log10(peak**2 / mean_square)
