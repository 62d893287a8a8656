"""Is what ships what was trained? The gates that a bundle passes before it is written.

Numeric: see ganexport.proof.numeric.
Distributional, with A and B two sets of seeds: FID(data, torch A) against FID(data, shipped A), and
the paired distance FID(torch A, shipped A) against the sampling floor FID(torch A, torch B). The
latter is a distance of the network to itself under other seeds; a faithful copy lies far below it.
And no image is another one: of each seed, torch's and the shipped one look alike to the extractor.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from ganexport.graph.tracing import NetworkExtractor, extractor_to_onnx
from ganexport.proof.classes import class_gate
from ganexport.proof.confidence import Resampled, Share
from ganexport.proof.drawn import Drawn, file_for
from ganexport.proof.numeric import numeric_gates, pixel_gates, runnable
from ganexport.proof.overflow import overflow_gate
from ganexport.proof.reference import drawn_by_torch, operations, reference_of
from ganexport.proof.rounding import uint8_images
from ganexport.proof.sequential import Answer, Look, looks
from ganexport.subjects.subject import Subject
from ganinfer.backends._base import Backend
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.manifest import GateResult, Precision, gate_result
from ganinfer.bundle.witness import (
    MAX_PAIRED_SHARE,
    PAIRED,
    PAIRED_OF_CLASS,
    Features,
    Witness,
    class_rows,
)
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs
from ganinfer.errors import CheckpointError, ConfigError, ExportError
from ganinfer.progress import Progress
from gantrain.data.opening import open_dataset
from gantrain.evaluation.references import check_there, open_reference
from gantrain.extractors._base import Extractor
from gantrain.extractors.classifier import RandomExtractor
from gantrain.metrics._moments import Moments, frechet_distance
from gantrain.metrics._reference import Reference

MIN_IMAGES = 1000
MIN_IMAGES_OF_A_CLASS = 50  # with fewer, a class's covariance says nothing
MAX_FID_CHANGE = 0.05  # or 1 % of the FID, if that is more
MAX_FID_CHANGE_SHARE = 0.01
MAX_PAIR = 0.5  # of the distance between two seeds' images; int8 of 35 dB comes to 0.2
_SEEDS_B = 1 << 32  # where the second set of seeds starts
# The first look: of a network that takes long at fewer images, and FIDs to data at no fewer.
_FIRST_LOOK, _LEAST_LOOK, _LEAST_LOOK_AT_DATA = 1000, 64, 500
_OPERATIONS_OF_FIRST_LOOK = 4e11
_VERY_LONG = 1e11  # operations of an image; then the first look is at half the least


@dataclass(frozen=True)
class _Judged:
    """A gate's result after a look, and whether more images would be of use."""

    result: GateResult
    answer: Answer


@dataclass(frozen=True)
class LeftOut:
    """What does not ship.

    Attributes:
        artifact: a precision, or an engine.
        why: in words, with what would help.
        gates: all that it was asked; none of what could not be made.
    """

    artifact: str
    why: str
    gates: Sequence[GateResult] = ()


class Prover:
    """Runs all gates of one generator; what torch makes of the seeds is drawn once."""

    def __init__(
        self,
        subject: Subject,
        reference: Reference | None,
        *,
        num_images: int,
        minutes: float = 10.0,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            subject: what is exported.
            reference: the real images and the extractor. None if there are none: then a network
                of random weights sees the images, and no FID to the data is asked for.
            num_images: of each set of the distributional gates, at most.
            minutes: from now on, after which no further look at more images is taken.
            progress: called with (what is being done, images done, images in all).

        Raises:
            ConfigError: too few images for a verdict.
        """
        if num_images < MIN_IMAGES:
            raise ConfigError(f"{num_images} images: the parity gates need {MIN_IMAGES} or more")
        self.subject, self.reference, self.num_images = subject, reference, num_images
        self._progress = progress
        self._ends = time.monotonic() + 60 * minutes
        self._artifacts_left = 1
        # One for all artifacts.
        self._resampled = lru_cache(maxsize=2)(self._resample)
        self._witness = lru_cache(maxsize=2)(self._make_witness)

    @cached_property
    def extractor(self) -> Extractor:
        """What sees the images."""
        if self.reference is not None:
            return self.reference.extractor
        return RandomExtractor(self.subject.model.shape)

    def check_graphs(
        self, graphs: Mapping[Precision, bytes]
    ) -> Iterator[tuple[Precision, list[GateResult]]]:
        """All gates of one variant after the other; the distribution if every number is right."""
        for left, (precision, graph) in zip(range(len(graphs), 0, -1), graphs.items(), strict=True):
            self._artifacts_left = left
            own = numeric_gates(self.subject, graph, precision)
            if precision == "fp16":
                # An emulation is judged; that the file itself runs here is seen, too.
                inputs, _ = reference_of(self.subject).first(1)
                OnnxRuntimeBackend(graph, "cpu", "fp16").run(inputs)
                own.append(overflow_gate(self.subject, graph))
            if all(gate.passed for gate in own):
                runs, artifact = runnable(graph, precision)
                backend = OnnxRuntimeBackend(runs, "cpu", precision)
                if precision == "fp32" and (gate := class_gate(self.subject, backend, artifact)):
                    own.append(gate)
                own += self.distributional_gates(backend, artifact)
            yield precision, own

    def check_backend(self, backend: Backend, artifact: str) -> list[GateResult]:
        """All gates that need no look inside: pixels, then distribution."""
        gates = pixel_gates(self.subject, backend, artifact)
        return gates + self.distributional_gates(backend, artifact)

    def distributional_gates(self, backend: Backend, artifact: str) -> list[GateResult]:
        """Compare the distribution of a backend's images with torch's; see the module."""
        shipped = self._drawn(artifact, backend.run)
        now = time.monotonic()
        until = now + max(0.0, self._ends - now) / self._artifacts_left
        judged: list[_Judged] = []
        for look in looks(self._first_look, self.num_images):
            started = time.monotonic()
            judged = self._judge(artifact, shipped, look)
            answers = {one.answer for one in judged}
            now = time.monotonic()
            # The next look takes about as long as all of them so far.
            if (
                Answer.FAILS in answers
                or Answer.OPEN not in answers
                or now + (now - started) > until
            ):
                break
        return [one.result for one in judged]

    def witness(self, num_images: int) -> Witness:
        """Torch's moments over the first seeds of A, and their distance to those of B.

        They are as many as were drawn for the gates, and num_images at most.
        """
        count = min(num_images, max(len(self._torch_a), self._first_look))
        return self._witness(count)

    def extractor_graph(self) -> bytes:
        """The extractor as an ONNX file, images uint8 -> features.

        Raises:
            ExportError: it is no network of the project's.
        """
        extractor, model = self.extractor, self.subject.model
        if not isinstance(extractor, NetworkExtractor):
            raise ExportError(f"{extractor.name}: not an extractor that a bundle can keep")
        return extractor_to_onnx(extractor, model.shape)

    def _judge(self, artifact: str, shipped: Drawn, look: Look) -> list[_Judged]:
        """All distributional gates, of as many images as a look has."""
        count = look.num_images
        a, b, found = (
            drawn.upto(count, of=self.num_images)
            for drawn in (self._torch_a, self._torch_b, shipped)
        )
        resampled = self._resampled(count)
        judged = []
        if self.reference is not None:
            judged.append(self._fid_change(artifact, look, resampled, a, found))
        witness, labels = self._witness(count), shipped.labels(count)
        shares = witness.shares(found, labels)
        share = resampled.share(float(shares[0]), found)
        judged.append(_paired(artifact, PAIRED, look, count, share))
        if len(shares) > 1:
            k = int(np.argmax(shares[1:]))
            own, others = class_rows(labels, k), class_rows(self._torch_b.labels(count), k)
            # The interval is the class's own, as if it had not been picked.
            share = Resampled(a[own], b[others]).share(float(shares[1 + k]), found[own])
            name, number = f"class {self.subject.model.classes[k]}", len(found[own])
            judged.append(_paired(artifact, PAIRED_OF_CLASS, look, number, share, name))
        judged.append(_worst_pair(artifact, a, found))
        return judged

    def _resample(self, num_images: int) -> Resampled:
        a, b = (drawn.upto(num_images, of=num_images) for drawn in (self._torch_a, self._torch_b))
        return Resampled(a, b)

    def _fid_change(
        self, artifact: str, look: Look, resampled: Resampled, torch_a: Features, shipped: Features
    ) -> _Judged:
        assert self.reference is not None
        real = self.reference.moments
        fid_torch = frechet_distance(real, Moments.of([torch_a]))
        fid_shipped = frechet_distance(real, Moments.of([shipped]))
        change = abs(fid_shipped - fid_torch)
        allowed = max(MAX_FID_CHANGE, MAX_FID_CHANGE_SHARE * fid_torch)
        interval = resampled.fid_change(
            fid_shipped - fid_torch,
            (real.mean.cpu().numpy(), real.covariance.cpu().numpy()),
            shipped,
        )
        answer = look.of_change(change, interval, allowed)
        found = f"{fid_torch:.4f} -> {fid_shipped:.4f}"
        result = gate_result(
            artifact,
            "FID change",
            change,
            f"<= {allowed:.3g}",
            change <= allowed,
            "; ".join(filter(None, [found, look.remark(answer)])),
            num_images=look.num_images,
            interval=interval,
        )
        return _Judged(result, answer)

    def _make_witness(self, num_images: int) -> Witness:
        a, b = (
            drawn.upto(num_images, of=self.num_images) for drawn in (self._torch_a, self._torch_b)
        )
        labels = self._torch_a.labels(num_images), self._torch_b.labels(num_images)
        enough = num_images >= MIN_IMAGES_OF_A_CLASS * self.subject.num_classes
        return Witness.of(a, b, labels, self.subject.num_classes if enough else 0)

    @cached_property
    def _first_look(self) -> int:
        """Few images of a network that takes long; of one with classes enough for each."""
        one = operations(self.subject)
        soon = int(_OPERATIONS_OF_FIRST_LOOK / one)
        least = _LEAST_LOOK // 2 if one > _VERY_LONG else _LEAST_LOOK
        if self.reference is not None:
            least = _LEAST_LOOK_AT_DATA
        of_classes = MIN_IMAGES_OF_A_CLASS * self.subject.num_classes
        first = max(least, min(_FIRST_LOOK, soon), of_classes if of_classes <= soon else 0)
        return min(first, self.num_images)

    @cached_property
    def _torch_a(self) -> Drawn:
        return self._drawn_by_torch("torch, seeds A", 0)

    @cached_property
    def _torch_b(self) -> Drawn:
        return self._drawn_by_torch("torch, seeds B", _SEEDS_B)

    def _drawn_by_torch(self, name: str, first_seed: int) -> Drawn:
        reference, classes = reference_of(self.subject), self.subject.num_classes
        file = file_for(reference, self.extractor, first_seed, classes)
        return self._drawn(name, self._torch_pixels, first_seed, file)

    def _drawn(
        self,
        name: str,
        draw: Callable[[Inputs], Images],
        first_seed: int = 0,
        file: Path | None = None,
    ) -> Drawn:
        return Drawn(
            name,
            self.subject,
            self.extractor,
            draw,
            first_seed=first_seed,
            file=file,
            progress=self._progress,
        )

    def _torch_pixels(self, inputs: Inputs) -> Images:
        return uint8_images(drawn_by_torch(self.subject, inputs))


def _paired(
    artifact: str, gate: str, look: Look, num_images: int, share: Share, detail: str = ""
) -> _Judged:
    """The paired distance over the sampling floor, as it would be after the last look."""
    answer, times = look.of_share(share, MAX_PAIRED_SHARE), look.growth(share)
    value = share.value * times
    low_high = share.interval
    result = gate_result(
        artifact,
        gate,
        value,
        f"<= {MAX_PAIRED_SHARE:g}",
        value <= MAX_PAIRED_SHARE,
        "; ".join(filter(None, [detail, look.remark(answer)])),
        num_images=num_images,
        interval=None if low_high is None else (low_high[0] * times, low_high[1] * times),
    )
    return _Judged(result, answer)


def _worst_pair(artifact: str, torch_a: Features, shipped: Features) -> _Judged:
    """The largest distance between the two images of a seed, over that between two seeds."""
    apart = np.sqrt(2 * torch_a.var(axis=0, dtype=np.float64).sum())
    distances = np.linalg.norm(shipped.astype(np.float64) - torch_a, axis=1)
    worst = int(distances.argmax())
    value = float(distances[worst] / apart) if apart else float(distances[worst] > 0)
    passed = value <= MAX_PAIR
    result = gate_result(
        artifact,
        "worst pair / two seeds",
        value,
        f"<= {MAX_PAIR:g}",
        passed,
        "" if passed else f"seed {worst}",
        num_images=len(shipped),
    )
    return _Judged(result, Answer.PASSES if result.passed else Answer.FAILS)


def open_prover(
    subject: Subject,
    data: Path | None,
    num_images: int,
    minutes: float,
    progress: Progress | None,
) -> Prover:
    """The gates of a generator, with its own dataset seen through its classifier.

    Raises:
        DataError: the data is not where the run found it. CheckpointError: it is other data.
        ConfigError: too few images. ExportError: images of another shape than the generator's.
    """
    source, model = subject.source, subject.model
    place = data or subject.data
    if place is None:
        return Prover(subject, None, num_images=num_images, minutes=minutes, progress=progress)
    if data is None:
        check_there(place)
    dataset = open_dataset(place, resolution=model.resolution, labelled=subject.labelled)
    if source.dataset_sha256 not in (None, dataset.sha256):
        raise CheckpointError(
            f"{dataset.path}: sha256 {dataset.sha256[:12]}..., and the generator was trained on"
            f" {source.dataset_sha256[:12]}...; give its own dataset with --data"
        )
    if dataset.images.shape[1:] != model.shape:
        raise ExportError(
            f"{dataset.path}: {dataset.height}x{dataset.width}x{dataset.channels}, and the"
            f" generator gives {model.size}; give data of that shape, or leave --data out"
        )
    reference = open_reference(dataset, progress=progress)
    return Prover(subject, reference, num_images=num_images, minutes=minutes, progress=progress)
