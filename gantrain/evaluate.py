"""Any iterable of uint8 batches -> scores. Who made the images does not matter here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ganinfer.bundle import is_bundle
from ganinfer.errors import DataError
from ganinfer.images import to_uint8
from ganinfer.latents import draw_labels
from ganinfer.lookup import find_module
from ganinfer.sampler import Sampler
from gantrain.checkpoint import load_discriminator, load_generator
from gantrain.data import Dataset
from gantrain.metrics._features import dataset_features
from gantrain.metrics._reference import Reference
from gantrain.models._base import GeneratorModule
from gantrain.samples import draw as draw_images
from gantrain.standing import standing_statistics

_BATCH = 100

Draw = Callable[[range, NDArray[np.int64] | None], NDArray[Any]]
Batch = tuple[NDArray[Any], NDArray[np.int64] | None]  # images (N, H, W, C), labels (N,)


@dataclass(frozen=True)
class Target:
    """What is measured: images as they are drawn, and what they are compared with.

    classes: of the generator. truncation: of the images, the default filled in.
    """

    batches: Iterator[Batch]
    reference: Reference
    classes: list[str]
    truncation: float | None


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
        dtype = reference.dataset.images.dtype
        if images.dtype != dtype or images.shape[1:] != expected:
            raise DataError(
                f"images {images.dtype} {images.shape}: the dataset {reference.dataset.path} has"
                f" {dtype} (N, {', '.join(map(str, expected))}); evaluate against its own data"
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
) -> Target:
    """What `gan evaluate` measures: images of a run or of a bundle, and the data to compare with.

    Args:
        target: folder of a run, one checkpoint file, or a bundle.
        data: the prepared dataset; by default the one that the generator was trained on.
        num_images: how many are drawn, for the seeds seed, seed + 1, ..., each drawing its label.
        seed, truncation: of the images; by default the truncation that G was trained with. For
            another, a run's network takes its batch norms' statistics anew.
        progress: called with (what is being done, done, in all).

    Returns:
        The batches, drawn as they are consumed, and the reference.

    Raises:
        CheckpointError, BundleError, DataError: the target or the data cannot be used.
    """

    def step(name: str) -> Callable[[int, int], None] | None:
        return (lambda done, total: progress(name, done, total)) if progress else None

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    draw: Draw
    if target.suffix == ".gan" or is_bundle(target):
        sampler = Sampler(target)
        classes, trained_on, place = sampler.classes, sampler.dataset_sha256, sampler.dataset_path
        draw = lambda seeds, labels: sampler.sample(  # noqa: E731
            seeds=seeds, labels=labels, truncation=truncation
        )
        discriminator = None
    else:
        trained = load_generator(target)
        classes, trained_on, place = trained.classes, trained.dataset_sha256, trained.dataset_path
        training = trained.config.train
        if truncation is None:
            truncation = training.truncation
        elif truncation != training.truncation:  # its batch norms have seen other latents
            standing_statistics(trained.network, truncation=truncation, seed=training.seed)
        draw = network_draw(trained.network.to(device), truncation=truncation, device=device)
        discriminator = load_discriminator(target)
    dataset = Dataset(data or place)
    fits = not classes or len(classes) == dataset.num_classes
    if not fits or (data is None and dataset.sha256 != trained_on):
        raise DataError(
            f"{dataset.path}: {dataset.num_classes} classes, sha256 {dataset.sha256[:12]}...; the"
            f" generator was trained on {len(classes)} classes, {trained_on[:12]}...; give its data"
            " with --data"
        )
    reference = Reference(
        dataset,
        dataset_features(dataset, device=device, progress=step("training the classifier")),
        step("measuring the real images"),
        discriminator,
        trained_on=Dataset(place) if dataset.sha256 != trained_on and place.is_dir() else None,
    )
    seeds = range(seed, seed + num_images)
    batches = _batches(draw, seeds, len(classes), step("generating"))
    return Target(batches, reference, classes, truncation)


def open_reference(dataset: Dataset, device: torch.device) -> Reference:
    """The dataset seen through the features that it brings along."""
    return Reference(dataset, dataset_features(dataset, device=device))


def score_network(
    network: GeneratorModule,
    reference: Reference,
    *,
    num_images: int,
    truncation: float | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """The default scores of a network in eval mode, over the seeds 0, 1, ..."""
    draw = network_draw(network, truncation=truncation, device=device)
    batches = _batches(draw, range(num_images), network.num_classes, None)
    names = default_metrics(reference.dataset, conditional=bool(network.num_classes))
    return evaluate(batches, reference, metrics=names).scores


def default_metrics(dataset: Dataset, *, conditional: bool) -> list[str]:
    """FID, and what else the data allows: label accuracy, modes."""
    if dataset.points is not None or dataset.stacked:
        return ["fid", "modes"]
    return ["fid", "label_accuracy"] if conditional else ["fid"]


def network_draw(
    network: GeneratorModule, *, truncation: float | None, device: torch.device | str
) -> Draw:
    """Seeds, labels -> images in the form of a dataset: uint8, or float32 if they are points."""

    def draw(seeds: range, labels: NDArray[np.int64] | None) -> NDArray[Any]:
        images = draw_images(network, seeds, labels, truncation=truncation, device=device)
        if images.shape[2:] == (1, 1):
            return images.transpose(0, 2, 3, 1)
        return to_uint8(images).transpose(0, 2, 3, 1)

    return draw


def _batches(
    draw: Draw,
    seeds: range,
    num_classes: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Batch]:
    for start in range(0, len(seeds), _BATCH):
        part = seeds[start : start + _BATCH]
        labels = draw_labels(part, num_classes) if num_classes else None
        yield draw(part, labels), labels
        if progress:
            progress(min(start + _BATCH, len(seeds)), len(seeds))
