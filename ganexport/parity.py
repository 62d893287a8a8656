"""Is what ships what was trained? The gates that a bundle passes before it is written.

Numeric: the same seeds and labels through torch in float32 and through what ships, compared on
[-1, 1] before rounding (absolute errors; relative ones explode near zero) and in uint8 steps after.
Distributional, with A and B two sets of seeds: FID(data, torch A) against FID(data, shipped A), and
the paired distance FID(torch A, shipped A) against the sampling floor FID(torch A, torch B). The
latter is a distance of the network to itself under other seeds; a faithful copy lies far below it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from ganexport.graph import float_images
from ganinfer.backends import Backend
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle import GateResult, Precision
from ganinfer.errors import ExportError
from ganinfer.golden import PIXEL_GATES, pixel_differences
from ganinfer.images import Images, to_uint8
from ganinfer.latents import draw_labels, draw_latents
from gantrain.checkpoint import TrainedGenerator
from gantrain.extractors._base import see
from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics._reference import Reference

Latents = NDArray[np.float32]
Labels = NDArray[np.int64] | None
Progress = Callable[[str, int, int], None]  # what is being done, images done, images in all

NUMERIC_IMAGES = 512
MIN_IMAGES = 1000
MIN_IMAGES_OF_A_CLASS = 50
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
}
MAX_FID_CHANGE = 0.05  # or 1 % of the FID, if that is more
MAX_FID_CHANGE_SHARE = 0.01
MAX_PAIRED_SHARE = 0.10  # of the sampling floor


def numeric_gates(
    trained: TrainedGenerator,
    graph: bytes,
    precision: Precision,
    *,
    num_images: int = NUMERIC_IMAGES,
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


class Prover:
    """Runs all gates of one trained generator; what torch makes of the seeds is drawn once."""

    def __init__(
        self,
        trained: TrainedGenerator,
        reference: Reference,
        *,
        num_images: int,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            trained: straight from its checkpoint.
            reference: the real images and the extractor.
            num_images: of each set of the distributional gates.
            progress: called with (what is being done, images done, images in all).

        Raises:
            ExportError: too few images for a verdict.
        """
        if num_images < MIN_IMAGES:
            raise ExportError(f"{num_images} images: the parity gates need {MIN_IMAGES} or more")
        self.trained = trained
        self.reference = reference
        self.num_images = num_images
        self._progress = progress
        # With fewer, a class's covariance says nothing.
        enough = num_images >= MIN_IMAGES_OF_A_CLASS * len(trained.classes)
        self._num_classes = len(trained.classes) if enough else 0

    def check_graphs(self, graphs: Mapping[Precision, bytes]) -> list[GateResult]:
        """All gates of all variants; the distribution only if every network is the right one."""
        gates = [
            gate
            for precision, graph in graphs.items()
            for gate in numeric_gates(self.trained, graph, precision)
        ]
        if not all(gate.passed for gate in gates):
            return gates
        for precision, graph in graphs.items():
            backend = OnnxRuntimeBackend(graph, "cpu", precision)
            gates += self.distributional_gates(backend, f"onnx {precision}")
        return gates

    def check_backend(self, backend: Backend, artifact: str) -> list[GateResult]:
        """All gates that need no look inside: pixels, then distribution."""
        gates = pixel_gates(self.trained, backend, artifact)
        return gates + self.distributional_gates(backend, artifact)

    def distributional_gates(self, backend: Backend, artifact: str) -> list[GateResult]:
        """Compare the distribution of a backend's images with torch's; see the module."""
        everything, *classes = self._measure(artifact, 0, partial(run_backend, backend))
        real, torch_a, torch_b = self.reference.moments, self._torch_a[0], self._torch_b[0]
        fid_torch = frechet_distance(real, torch_a)
        fid_shipped = frechet_distance(real, everything)
        change = abs(fid_shipped - fid_torch)
        allowed = max(MAX_FID_CHANGE, MAX_FID_CHANGE_SHARE * fid_torch)
        paired = self._share_of_floor(torch_a, everything, torch_b)
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
                self._share_of_floor(a, shipped, b)
                for a, shipped, b in zip(self._torch_a[1:], classes, self._torch_b[1:], strict=True)
            ]
            worst = int(np.argmax(shares))
            results.append(
                _result(
                    artifact,
                    "paired, worst class",
                    shares[worst],
                    f"<= {MAX_PAIRED_SHARE:g}",
                    shares[worst] <= MAX_PAIRED_SHARE,
                    f"class {self.trained.classes[worst]}",
                )
            )
        return results

    @cached_property
    def _torch_a(self) -> list[Moments]:
        return self._measure("torch, seeds A", 0, self._torch_pixels)

    @cached_property
    def _torch_b(self) -> list[Moments]:
        return self._measure("torch, seeds B", _SEEDS_B, self._torch_pixels)

    def _torch_pixels(self, z: Latents, y: Labels) -> Images:
        return to_uint8(run_torch(self.trained, z, y)).transpose(0, 2, 3, 1)

    def _measure(
        self, name: str, first_seed: int, draw: Callable[[Latents, Labels], Images]
    ) -> list[Moments]:
        """Moments of all images, then of each class, for num_images seeds from the first on."""
        moments = [Moments() for _ in range(1 + self._num_classes)]
        num_classes = len(self.trained.classes)
        end = first_seed + self.num_images
        for start in range(first_seed, end, _BATCH):
            seeds = range(start, min(start + _BATCH, end))
            y = draw_labels(seeds, num_classes) if num_classes else None
            seen = see(self.reference.extractor, draw(latents(self.trained, seeds), y)).features
            moments[0].update(seen)
            for number, of_class in enumerate(moments[1:]):
                of_class.update(seen[torch.from_numpy(y == number)])
            if self._progress:
                self._progress(name, seeds[-1] + 1 - first_seed, self.num_images)
        return moments

    def _share_of_floor(self, torch_a: Moments, shipped: Moments, torch_b: Moments) -> float:
        """FID(torch A, shipped A) / FID(torch A, torch B); a floor of 0 counts as a bit."""
        least = 1e-6 * float(self.reference.moments.covariance.trace())
        paired = max(frechet_distance(torch_a, shipped), 0.0)
        return paired / max(frechet_distance(torch_a, torch_b), least)


def latents(trained: TrainedGenerator, seeds: range) -> Latents:
    """The latents (N, Z) that the SDK draws for these seeds when no truncation is asked for."""
    network = trained.network
    return draw_latents(
        seeds,
        network.z_dim,
        distribution=network.z_distribution,
        truncation=trained.config.train.truncation,
    )


@torch.no_grad()
def run_torch(trained: TrainedGenerator, z: Latents, y: Labels) -> NDArray[np.float32]:
    """The reference: the checkpoint's own network, float32 (N, C, H, W), before rounding."""
    parts = [
        trained.network(
            torch.from_numpy(z[i : i + 64]),
            None if y is None else torch.from_numpy(y[i : i + 64]),
        ).numpy()
        for i in range(0, len(z), 64)
    ]
    return np.concatenate(parts)


def run_backend(backend: Backend, z: Latents, y: Labels) -> Images:
    """What ships: uint8 (N, H, W, C), in the batches of 64 that `Sampler` sends."""
    return np.concatenate(
        [
            backend.run(z[i : i + 64], None if y is None else y[i : i + 64])
            for i in range(0, len(z), 64)
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


def _psnr(mean_square: float, *, peak: float) -> float:
    return math.inf if mean_square == 0 else 10 * math.log10(peak**2 / mean_square)
