"""A run's discriminator for a bundle: proven against torch, and calibrated, for ganinfer.rejection.

A logit becomes a log density ratio by a logistic regression on real images and on images of the
graph that ships (Platt, Probabilistic outputs for support vector machines, 1999): the logit of D
under the game's loss is one already if D is optimal, which it never is, and a critic's is on a
scale of its own. Its mean ratio over the generated images of a class is then made 1, as that of two
densities is; else classes that D likes would drive out the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ganexport.graph.tracing import discriminator_to_onnx, plain
from ganexport.subjects.subject import Subject
from ganinfer.backends._base import Backend
from ganinfer.backends.onnxruntime import FeatureNetwork
from ganinfer.bundle.manifest import Discriminator, GateResult, gate_result
from ganinfer.bundle.witness import Labels
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import draw_inputs
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import ExportError
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset, to_floats
from gantrain.metrics._neighbours import some_rows
from gantrain.models._base import DiscriminatorModule

MAX_ERROR = 1e-4  # of logits, over their standard deviation
NUM_PROBES = 256
NUM_QUANTILES = 101
_CALIBRATION_SEEDS, _BURN_IN_SEEDS = 1 << 36, 1 << 37  # no other part of an export looks at these
_BATCH = 100

Batches = Iterator[tuple[Images, Labels]]


@dataclass(frozen=True)
class Shipped:
    """What a bundle gets: an ONNX file, what the manifest says of it, and the gates it passed."""

    file: bytes
    entry: Discriminator
    gates: list[GateResult]


def ship_discriminator(
    subject: Subject,
    backend: Backend,
    real: Dataset,
    *,
    held_out: bool,
    num_images: int,
    progress: Progress | None = None,
) -> Shipped:
    """The discriminator that a generator was trained against.

    Args:
        subject: a run's, with its discriminator.
        backend: of the graph that ships.
        real: images to calibrate on.
        held_out: whether D has not seen them.
        num_images: at most so many real ones, as many generated ones, and as many of the burn-in.
        progress: called with (what is being done, images done, images in all).

    Raises:
        ExportError: it judges batches instead of images, does not tell real images
            from generated ones, or the images are others than the generator's.
    """
    model = subject.model
    assert subject.open_discriminator is not None
    if real.images.shape[1:] != model.shape or subject.num_classes not in (0, real.num_classes):
        raise ExportError(
            f"{real.path}: {real.height}x{real.width}x{real.channels} of"
            f" {real.num_classes} classes, and the discriminator takes {model.size} of"
            f" {subject.num_classes}"
        )
    rows = some_rows(len(real), num_images)
    real_probes = list(_real(real, rows[:NUM_PROBES], subject))
    _check_judges_images(subject.open_discriminator(), *real_probes[0], subject.where)
    file = discriminator_to_onnx(
        plain(subject.open_discriminator()),
        model.shape,
        conditional=bool(subject.num_classes),
    )
    judge = FeatureNetwork(file)

    def logits(name: str, batches: Batches, count: int) -> NDArray[np.float64]:
        found: list[NDArray[np.float32]] = []
        for images, y in batches:
            found.append(judge(images, y))
            if progress:
                progress(name, min(len(found) * _BATCH, count), count)
        return np.concatenate(found).astype(np.float64)

    of_real = logits("logits of real images", _real(real, rows, subject), len(rows))
    fake = _generated(subject, backend, _CALIBRATION_SEEDS, len(rows))
    scale = calibrate(of_real, logits("logits of generated images", fake, len(rows)))
    if scale <= 0:
        raise ExportError(
            f"{subject.where}: its discriminator does not give real images higher logits than"
            " generated ones, so nothing can be accepted by it; leave --with-discriminator out"
        )
    burn_in = _generated(subject, backend, _BURN_IN_SEEDS, num_images)
    scores = scale * logits("burn-in", burn_in, num_images)
    y = _labels(subject, _BURN_IN_SEEDS, num_images)
    offsets = normalisers(scores, y, subject.num_classes)
    ratios = scores + offsets[0 if y is None else y]
    probes = [
        *real_probes,
        *_generated(subject, backend, _CALIBRATION_SEEDS, NUM_PROBES),
    ]
    entry = Discriminator(
        path="onnx/discriminator.onnx",
        objective=subject.source.config["objective"]["name"],
        scale=scale,
        offsets=offsets.tolist(),
        held_out=held_out,
        quantiles=np.quantile(ratios, np.linspace(0, 1, NUM_QUANTILES)).tolist(),
    )
    gate = _gate(subject.open_discriminator(), judge, probes)
    return Shipped(file, entry, [gate])


def calibrate(real: NDArray[np.float64], fake: NDArray[np.float64]) -> float:
    """What makes logits log p / q, but for an offset: logistic regression on as many of both.

    Targets lie a little inside 0 and 1, as Platt's do, so that separate sets have a solution.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    both = np.concatenate([real, fake])
    spread = both.std() or 1.0
    x = (both - both.mean()) / spread
    target = np.repeat([len(real) + 1.0, 1.0], [len(real), len(fake)]) / (len(real) + 2)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = parameters[0] * x + parameters[1]
        excess = expit(scores) - target
        value = (np.logaddexp(0, scores) - target * scores).mean()
        return value, np.array([(excess * x).mean(), excess.mean()])

    return float(minimize(loss, np.zeros(2), jac=True, method="BFGS").x[0] / spread)


def normalisers(scores: NDArray[np.float64], y: Labels, num_classes: int) -> NDArray[np.float64]:
    """Offsets that make exp(score + offset) 1 on average: of each class (K,), or of all (1,).

    A class that has no scores takes the offset of all.
    """
    groups = [scores if y is None else scores[y == k] for k in range(num_classes or 1)]
    groups = [group if len(group) else scores for group in groups]
    return -np.array([np.logaddexp.reduce(group) - np.log(len(group)) for group in groups])


def _check_judges_images(
    network: DiscriminatorModule, images: Images, y: Labels, where: str
) -> None:
    """Refuse a network whose logits depend on the batch."""
    together = _torch_logits(network, images, y)
    if together.ndim != 1:
        raise ExportError(
            f"{where}: its discriminator gives an image {together.shape[1]} logits, and one is"
            " accepted or not by a single one; leave --with-discriminator out"
        )
    alone = _torch_logits(network, images[:1], None if y is None else y[:1])
    if abs(float(alone[0] - together[0])) > MAX_ERROR * (float(together.std()) or 1.0):
        raise ExportError(
            f"{where}: its discriminator judges an image by the others of its batch, as minibatch"
            " discrimination does; leave --with-discriminator out"
        )


def _gate(
    network: DiscriminatorModule,
    judge: FeatureNetwork,
    probes: list[tuple[Images, Labels]],
) -> GateResult:
    """What ships against torch."""
    expected = np.concatenate([_torch_logits(network, images, y) for images, y in probes])
    found = np.concatenate([judge(images, y) for images, y in probes])
    spread = float(expected.std()) or 1.0
    error = float(np.abs(found - expected).max()) / spread
    limit = f"<= {MAX_ERROR:g}"
    passed = error <= MAX_ERROR
    gate = "max error / spread"
    return gate_result("discriminator", gate, error, limit, passed, num_images=len(expected))


@torch.no_grad()
def _torch_logits(network: DiscriminatorModule, images: Images, y: Labels) -> NDArray[np.float32]:
    classes = None if y is None else torch.from_numpy(y)
    logits: NDArray[np.float32] = network(to_floats(torch.from_numpy(images)), classes).numpy()
    return logits


def _real(dataset: Dataset, rows: NDArray[np.int64], subject: Subject) -> Batches:
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        labels = dataset.labels if subject.num_classes else None
        yield dataset.images[part], None if labels is None else labels[part]


def _generated(subject: Subject, backend: Backend, first_seed: int, count: int) -> Batches:
    end = first_seed + count
    for start in range(first_seed, end, _BATCH):
        seeds = range(start, min(start + _BATCH, end))
        y = _labels(subject, start, len(seeds))
        yield backend.run(draw_inputs(subject.model, seeds, y)), y


def _labels(subject: Subject, first_seed: int, count: int) -> Labels:
    seeds = range(first_seed, first_seed + count)
    return draw_labels(seeds, subject.num_classes) if subject.num_classes else None
