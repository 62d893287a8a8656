"""Is what ships what was trained? The gates that a bundle passes before it is written.

Numeric: see ganexport.proof.numeric.
Distributional, with A and B two sets of seeds: FID(data, torch A) against FID(data, shipped A), and
the paired distance FID(torch A, shipped A) against the sampling floor FID(torch A, torch B). The
latter is a distance of the network to itself under other seeds; a faithful copy lies far below it.
"""

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ganexport.graph.tracing import NetworkExtractor, extractor_to_onnx
from ganexport.proof.confidence import Resampled, decisive_for_change, decisive_for_share, remark
from ganexport.proof.numeric import numeric_gates, pixel_gates, run_backend, run_torch, runnable
from ganexport.proof.overflow import overflow_gate
from ganexport.subjects.subject import Subject
from ganinfer.backends._base import Backend
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.manifest import GateResult, Interval, Precision, gate_result
from ganinfer.bundle.witness import (
    MAX_PAIRED_SHARE,
    Features,
    Labels,
    Witness,
    class_rows,
    paired_gates,
)
from ganinfer.drawing.images import Images, to_uint8
from ganinfer.drawing.inputs import Inputs, draw_inputs
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import CheckpointError, ExportError
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.evaluation.references import open_reference
from gantrain.extractors._base import Extractor, see
from gantrain.extractors.classifier import RandomExtractor
from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics._reference import Reference

MIN_IMAGES = 1000
MIN_IMAGES_OF_A_CLASS = 50  # with fewer, a class's covariance says nothing
MAX_FID_CHANGE = 0.05  # or 1 % of the FID, if that is more
MAX_FID_CHANGE_SHARE = 0.01
_BATCH = 500
_SEEDS_B = 1 << 32  # where the second set of seeds starts


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
        return RandomExtractor(self.subject.model.shape)

    def check_graphs(self, graphs: Mapping[Precision, bytes]) -> list[GateResult]:
        """All gates of all variants; the distribution only if every network is the right one."""
        gates = [
            gate
            for precision, graph in graphs.items()
            for gate in numeric_gates(self.subject, graph, precision)
        ]
        if "fp16" in graphs:
            # An emulation is judged; that the file itself runs here is seen, too.
            inputs = draw_inputs(self.subject.model, [0], self._labels(0, 1))
            OnnxRuntimeBackend(graphs["fp16"], "cpu", "fp16").run(inputs)
            gates.append(overflow_gate(self.subject, graphs["fp16"]))
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
        return extractor_to_onnx(extractor, model.shape)

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


def open_prover(
    subject: Subject,
    data: Path | None,
    num_images: int,
    progress: Progress | None,
) -> Prover:
    """The gates of a generator, with its own dataset seen through its classifier.

    Raises:
        DataError: the data is not where the run found it. CheckpointError: it is other data.
        ExportError: too few images, or images of another shape than the generator's.
    """
    source, model = subject.source, subject.model
    place = data or (Path(source.dataset_path) if source.dataset_path else None)
    if place is None:
        return Prover(subject, None, num_images=num_images, progress=progress)
    dataset = Dataset(place)
    if source.dataset_sha256 not in (None, dataset.sha256):
        raise CheckpointError(
            f"{dataset.path}: sha256 {dataset.sha256[:12]}..., and the generator was trained on"
            f" {source.dataset_sha256[:12]}...; give its own dataset with --data"
        )
    if dataset.images.shape[1:] != model.shape:
        raise ExportError(
            f"{dataset.path}: {dataset.resolution}x{dataset.resolution}x{dataset.channels}, and the"
            f" generator gives {model.size}; give data of that shape, or leave --data out"
        )
    reference = open_reference(dataset, progress=progress)
    return Prover(subject, reference, num_images=num_images, progress=progress)
