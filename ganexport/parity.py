"""Is what ships what was trained? The gates that a bundle passes before it is written.

Numeric: the same seeds and labels through torch in float32 and through what ships, compared on
[-1, 1] before rounding (absolute errors; relative ones explode near zero) and in uint8 steps after.
Distributional, with A and B two sets of seeds: FID(data, torch A) against FID(data, shipped A), and
the paired distance FID(torch A, shipped A) against the sampling floor FID(torch A, torch B). The
latter is a distance of the network to itself under other seeds; a faithful copy lies far below it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ganexport.confidence import (
    Resampled,
    decisive_for_change,
    decisive_for_share,
    mean_interval,
    psnr_interval,
    remark,
)
from ganexport.graph import NetworkExtractor, extractor_to_onnx, float_images
from ganexport.precision import emulate
from ganexport.subject import Subject
from ganinfer.backends import Backend
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.errors import ExportError
from ganinfer.golden import PIXEL_GATES, pixel_differences
from ganinfer.images import Images, to_uint8
from ganinfer.inputs import Inputs, draw_inputs
from ganinfer.latents import draw_labels
from ganinfer.manifest import GateResult, Interval, Precision, gate_result
from ganinfer.progress import Progress
from ganinfer.witness import MAX_PAIRED_SHARE, Features, Labels, Witness, class_rows, paired_gates
from gantrain.extractors._base import Extractor, see
from gantrain.extractors.classifier import RandomExtractor
from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics._reference import Reference

NUMERIC_IMAGES = 512
MIN_IMAGES = 1000
MIN_IMAGES_OF_A_CLASS = 50  # with fewer, a class's covariance says nothing
_BATCH = 500
_SEEDS_B = 1 << 32  # where the second set of seeds starts


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
MAX_FID_CHANGE = 0.05  # or 1 % of the FID, if that is more
MAX_FID_CHANGE_SHARE = 0.01


def numeric_gates(
    subject: Subject,
    graph: bytes,
    precision: Precision,
    *,
    num_images: int = NUMERIC_IMAGES,
) -> list[GateResult]:
    """Compare a graph, run by onnxruntime on the CPU, with torch in float32.

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
        worst, limit = float(error.max()), bound.max_error
        results.append(
            gate_result(
                artifact,
                "max error",
                worst,
                f"<= {limit:g}",
                worst <= limit,
                num_images=num_images,
            )
        )
    if bound.min_psnr_db is not None:
        psnr, limit = _psnr(float(np.mean(error**2)), peak=2.0), bound.min_psnr_db
        interval = psnr_interval(error**2, peak=2.0)
        results.append(
            gate_result(
                artifact,
                "PSNR, dB",
                psnr,
                f">= {limit:g}",
                psnr >= limit,
                remark(interval, limit),
                num_images=num_images,
                interval=interval,
            )
        )
    backend = OnnxRuntimeBackend(graph, "cpu", precision)
    return results + pixel_gates(subject, backend, artifact, num_images=num_images)


def numeric_psnr(subject: Subject, graph: bytes, precision: Precision, *, num_images: int) -> float:
    """PSNR in dB, peak 2, of a graph's images before rounding."""
    inputs, reference = _numeric_reference(subject, num_images)
    shipped = _run_float_output(runnable(graph, precision)[0], inputs)
    error = shipped.astype(np.float64) - reference
    return _psnr(float(np.mean(error**2)), peak=2.0)


def runnable(graph: bytes, precision: Precision) -> tuple[bytes, str]:
    """The graph that onnxruntime's CPU can run, and what a gate calls it."""
    if precision == "bf16":
        return emulate(graph), "onnx bf16 (emulated)"
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
    steps, share, psnr = pixel_differences(found, expected)
    results = [
        gate_result(
            artifact,
            "max uint8 step",
            steps,
            f"<= {gate.max_steps}",
            steps <= gate.max_steps,
            num_images=num_images,
        )
    ]
    if gate.min_psnr_db is not None:
        interval = psnr_interval((found.astype(np.float64) - expected) ** 2, peak=255.0)
        results.append(
            gate_result(
                artifact,
                "PSNR uint8, dB",
                psnr,
                f">= {gate.min_psnr_db:g}",
                psnr >= gate.min_psnr_db,
                remark(interval, gate.min_psnr_db),
                num_images=num_images,
                interval=interval,
            )
        )
    if gate.max_share is not None:
        interval = mean_interval(found != expected)
        results.append(
            gate_result(
                artifact,
                "pixels off",
                share,
                f"<= {gate.max_share:g}",
                share <= gate.max_share,
                remark(interval, gate.max_share),
                num_images=num_images,
                interval=interval,
            )
        )
    return results


def _other_shape(artifact: str, expected: tuple[int, ...], num_images: int) -> GateResult:
    limit = f"equal to {expected}"
    return gate_result(artifact, "image shape", 0.0, limit, False, num_images=num_images)


@lru_cache(maxsize=2)
def _numeric_reference(subject: Subject, num_images: int) -> tuple[Inputs, NDArray[np.float32]]:
    """Inputs for the seeds 0, 1, ... and torch's images."""
    inputs, _ = probes(subject, num_images)
    return inputs, run_torch(subject, inputs)


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


class Prover:
    """Runs all gates of one generator; what torch makes of the seeds is drawn once."""

    def __init__(
        self,
        subject: Subject,
        reference: Reference | None,
        *,
        num_images: int,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            subject: what is exported.
            reference: the real images and the extractor. None if there are none: then a network
                of random weights sees the images, and no FID to the data is asked for.
            num_images: of each set of the distributional gates.
            progress: called with (what is being done, images done, images in all).

        Raises:
            ExportError: too few images for a verdict.
        """
        if num_images < MIN_IMAGES:
            raise ExportError(f"{num_images} images: the parity gates need {MIN_IMAGES} or more")
        self.subject, self.reference, self.num_images = subject, reference, num_images
        self._progress = progress

    @cached_property
    def extractor(self) -> Extractor:
        """What sees the images."""
        if self.reference is not None:
            return self.reference.extractor
        return RandomExtractor(self.subject.model.resolution, self.subject.model.channels)

    def check_graphs(self, graphs: Mapping[Precision, bytes]) -> list[GateResult]:
        """All gates of all variants; the distribution only if every network is the right one."""
        gates = [
            gate
            for precision, graph in graphs.items()
            for gate in numeric_gates(self.subject, graph, precision)
        ]
        if not all(gate.passed for gate in gates):
            return gates
        for precision, graph in graphs.items():
            graph, artifact = runnable(graph, precision)
            backend = OnnxRuntimeBackend(graph, "cpu", precision)
            gates += self.distributional_gates(backend, artifact)
        return gates

    def check_backend(self, backend: Backend, artifact: str) -> list[GateResult]:
        """All gates that need no look inside: pixels, then distribution."""
        gates = pixel_gates(self.subject, backend, artifact)
        return gates + self.distributional_gates(backend, artifact)

    def distributional_gates(self, backend: Backend, artifact: str) -> list[GateResult]:
        """Compare the distribution of a backend's images with torch's; see the module."""
        shipped = self._see(artifact, 0, partial(run_backend, backend))
        results = []
        if self.reference is not None:
            real, torch_a = self.reference.moments, Moments.of([self._torch_a])
            fid_torch = frechet_distance(real, torch_a)
            fid_shipped = frechet_distance(real, Moments.of([shipped]))
            change = abs(fid_shipped - fid_torch)
            allowed = max(MAX_FID_CHANGE, MAX_FID_CHANGE_SHARE * fid_torch)
            interval = self._resampled.fid_change(
                fid_shipped - fid_torch,
                (real.mean.cpu().numpy(), real.covariance.cpu().numpy()),
                shipped,
            )
            decisive = decisive_for_change(self.num_images, change, interval, allowed)
            found = f"{fid_torch:.4f} -> {fid_shipped:.4f}"
            results.append(
                gate_result(
                    artifact,
                    "FID change",
                    change,
                    f"<= {allowed:.3g}",
                    change <= allowed,
                    "; ".join(filter(None, [found, remark(interval, allowed, decisive)])),
                    num_images=self.num_images,
                    interval=interval,
                )
            )
        labels = self._labels(0, self.num_images)
        classes = self.subject.model.classes
        witness = self.witness(self.num_images)
        confidence = partial(self._confidence, shipped)
        return results + paired_gates(witness, shipped, labels, artifact, classes, confidence)

    def _confidence(
        self, shipped: Features, k: int | None, share: float
    ) -> tuple[Interval | None, str]:
        """The interval of a paired share, of class k or of all, and a remark.

        That of the worst class is the class's own, as if it had not been picked.
        """
        a, b = (
            class_rows(self._labels(first_seed, self.num_images), k) for first_seed in (0, _SEEDS_B)
        )
        resampled = self._resampled if k is None else Resampled(self._torch_a[a], self._torch_b[b])
        interval = resampled.share(share, shipped[a])
        decisive = decisive_for_share(self.num_images, interval, MAX_PAIRED_SHARE)
        return interval, remark(interval, MAX_PAIRED_SHARE, decisive)

    @cached_property
    def _resampled(self) -> Resampled:
        return Resampled(self._torch_a, self._torch_b)

    def witness(self, num_images: int) -> Witness:
        """Torch's moments over the first seeds of A, and their distance to those of B."""
        a, b = self._torch_a[:num_images], self._torch_b[:num_images]
        labels = self._labels(0, len(a)), self._labels(_SEEDS_B, len(b))
        enough = len(a) >= MIN_IMAGES_OF_A_CLASS * self.subject.num_classes
        return Witness.of(a, b, labels, self.subject.num_classes if enough else 0)

    def extractor_graph(self) -> bytes:
        """The extractor as an ONNX file, images uint8 -> features.

        Raises:
            ExportError: it is no network of the project's.
        """
        extractor, model = self.extractor, self.subject.model
        if not isinstance(extractor, NetworkExtractor):
            raise ExportError(f"{extractor.name}: not an extractor that a bundle can keep")
        return extractor_to_onnx(extractor, resolution=model.resolution, channels=model.channels)

    @cached_property
    def _torch_a(self) -> Features:
        return self._see("torch, seeds A", 0, self._torch_pixels)

    @cached_property
    def _torch_b(self) -> Features:
        return self._see("torch, seeds B", _SEEDS_B, self._torch_pixels)

    def _torch_pixels(self, inputs: Inputs) -> Images:
        return to_uint8(run_torch(self.subject, inputs)).transpose(0, 2, 3, 1)

    def _labels(self, first_seed: int, num_images: int) -> Labels:
        classes = self.subject.num_classes
        return draw_labels(range(first_seed, first_seed + num_images), classes) if classes else None

    def _see(self, name: str, first_seed: int, draw: Callable[[Inputs], Images]) -> Features:
        """Features float32 (N, F) of num_images seeds from the first on."""
        found = []
        end = first_seed + self.num_images
        for start in range(first_seed, end, _BATCH):
            seeds = range(start, min(start + _BATCH, end))
            labels = self._labels(start, len(seeds))
            images = draw(draw_inputs(self.subject.model, seeds, labels))
            found.append(see(self.extractor, images).features.cpu().numpy())
            if self._progress:
                self._progress(name, seeds[-1] + 1 - first_seed, self.num_images)
        return np.concatenate(found)


@torch.no_grad()
def run_torch(subject: Subject, inputs: Inputs) -> NDArray[np.float32]:
    """The reference: the network itself, float32 (N, C, H, W), before rounding."""
    return np.concatenate([subject(part).numpy() for part in _batches(inputs)])


def run_backend(backend: Backend, inputs: Inputs) -> Images:
    """What ships: uint8 (N, H, W, C), in the batches of 64 that `Sampler` sends."""
    return np.concatenate([backend.run(part) for part in _batches(inputs)])


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
