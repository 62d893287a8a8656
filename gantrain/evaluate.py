"""Any iterable of uint8 batches -> scores. Who made the images does not matter here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ganinfer.bundle import is_bundle
from ganinfer.errors import DataError
from ganinfer.latents import draw_labels
from ganinfer.lookup import find_module
from ganinfer.sampler import Sampler
from gantrain.checkpoint import load_generator
from gantrain.data import Dataset
from gantrain.metrics._features import dataset_classifier
from gantrain.metrics._reference import Reference
from gantrain.train import generate, pick_device

_BATCH = 100

Batch = tuple[NDArray[np.uint8], NDArray[np.int64] | None]  # images (N, H, W, C), labels (N,)


@dataclass(frozen=True)
class Evaluation:
    """Scores, and what they were computed on."""

    scores: dict[str, float]
    num_images: int
    extractor: str
    dataset_sha256: str


def evaluate(
    batches: Iterable[Batch], reference: Reference, *, metrics: Sequence[str]
) -> Evaluation:
    """Score generated images in one pass.

    Args:
        batches: images uint8 (N, H, W, C) and the labels (N,) that were asked for, or None.
        reference: the real images and the extractor.
        metrics: names of modules in gantrain.metrics.

    Returns:
        The scores and their circumstances.

    Raises:
        ConfigError: an unknown metric.
        DataError: too few images, another shape than the dataset's, or a metric that the data
            does not have.
    """
    accumulators = [module.Metric(reference) for module in metric_modules(metrics)]
    expected = reference.dataset.images.shape[1:]
    num_images = 0
    for images, labels in batches:
        if images.dtype != np.uint8 or images.shape[1:] != expected:
            raise DataError(
                f"images {images.dtype} {images.shape}: the dataset {reference.dataset.path} has"
                f" uint8 (N, {', '.join(map(str, expected))}); evaluate against its own data"
            )
        features = reference.extractor(images, labels)
        num_images += len(images)
        for accumulator in accumulators:
            accumulator.update(features)
    scores = {k: v for accumulator in accumulators for k, v in accumulator.scores().items()}
    return Evaluation(scores, num_images, reference.extractor.name, reference.dataset.sha256)


def metric_modules(names: Sequence[str]) -> list[ModuleType]:
    """The modules of metrics by name.

    Raises:
        ConfigError: an unknown one.
    """
    return [find_module("gantrain.metrics", name, where="--metrics") for name in names]


def open_target(
    target: Path,
    data: Path | None,
    *,
    num_images: int,
    seed: int = 0,
    truncation: float | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Iterator[Batch], Reference]:
    """What `gan evaluate` measures: images of a run or of a bundle, and the data to compare with.

    Args:
        target: folder of a run, one checkpoint file, or a bundle.
        data: the prepared dataset; by default the one that the generator was trained on.
        num_images: how many are drawn, for the seeds seed, seed + 1, ..., each drawing its label.
        seed, truncation: of the images.
        progress: called with (what is being done, done, in all).

    Returns:
        The batches, drawn as they are consumed, and the reference.

    Raises:
        CheckpointError, BundleError, DataError: the target or the data cannot be used.
    """

    def step(name: str) -> Callable[[int, int], None] | None:
        return (lambda done, total: progress(name, done, total)) if progress else None

    draw: Callable[[range, NDArray[np.int64] | None], NDArray[np.uint8]]
    device = pick_device("auto", where="evaluate")
    if target.suffix == ".gan" or is_bundle(target):
        sampler = Sampler(target)
        classes, trained_on, place = sampler.classes, sampler.dataset_sha256, sampler.dataset_path
        draw = lambda seeds, labels: sampler.sample(  # noqa: E731
            seeds=seeds, labels=labels, truncation=truncation
        )
    else:
        trained = load_generator(target)
        network = trained.network.to(device)
        classes, trained_on, place = trained.classes, trained.dataset_sha256, trained.dataset_path
        draw = lambda seeds, labels: generate(  # noqa: E731
            network, seeds, labels, truncation=truncation, device=device
        )
    dataset = Dataset(data or place)
    if len(classes) != dataset.num_classes or (data is None and dataset.sha256 != trained_on):
        raise DataError(
            f"{dataset.path}: {dataset.num_classes} classes, sha256 {dataset.sha256[:12]}...; the"
            f" generator was trained on {len(classes)} classes, {trained_on[:12]}...; give its data"
            " with --data"
        )
    extractor = dataset_classifier(dataset, device=device, progress=step("training the classifier"))

    def batches() -> Iterator[Batch]:
        end = seed + num_images
        for start in range(seed, end, _BATCH):
            seeds = range(start, min(start + _BATCH, end))
            labels = draw_labels(seeds, dataset.num_classes) if dataset.num_classes else None
            yield draw(seeds, labels), labels
            if progress:
                progress("generating", seeds[-1] + 1 - seed, num_images)

    return batches(), Reference(dataset, extractor, step("measuring the real images"))
