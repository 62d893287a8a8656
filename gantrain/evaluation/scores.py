"""Images -> scores. Who made the images does not matter here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray

from ganinfer.errors import ConfigError, DataError
from ganinfer.lookup import Held, Kind, find_part, held_function
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.distributed import alone, rank
from gantrain.evaluation.targets import network_draw
from gantrain.extractors._base import Extractor
from gantrain.metrics._generated import Generated
from gantrain.metrics._measured import (
    SEEN,
    Batch,
    Measured,
    MeasuredSource,
    Source,
    in_batches,
    measure_once,
)
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Score
from gantrain.models._base import GeneratorModule

COLUMNS = ("images", *SEEN)
METRIC = Kind(
    "gantrain.metrics",
    {
        "scores": held_function("reference", "fake"),
        "NEEDS": Held(
            f"a tuple of {', '.join(COLUMNS)}",
            lambda found: isinstance(found, tuple) and all(c in COLUMNS for c in found),
        ),
        "BETTER": Held(
            'a dict: score -> "lower", "higher", the best value, or None',
            lambda found: isinstance(found, dict),
        ),
    },
)


@dataclass(frozen=True)
class Evaluation:
    """Scores, and what they were computed on.

    Attributes:
        scores: by name.
        num_images: generated ones.
        extractor, resizer: what saw them; "none" if no metric needed an extractor.
        dataset: folder or file of the real images. dataset_sha256: of a prepared dataset.
    """

    scores: dict[str, Score]
    num_images: int
    extractor: str
    resizer: str
    dataset: str
    dataset_sha256: str | None

    @property
    def values(self) -> dict[str, float]:
        """The figures alone."""
        return {name: score.value for name, score in self.scores.items()}


def score_images(
    images: Iterable[Batch] | Source,
    reference: Reference,
    *,
    metrics: Sequence[str],
    progress: Progress | None = None,
) -> Evaluation:
    """Score images.

    Args:
        images: batches of images uint8 (N, H, W, C) with the labels (N,) that were asked for, or
            None, which are gone through once; or a source, of which what was seen is kept in the
            reference's cache.
        reference: the real images and the extractor.
        metrics: names of modules in gantrain.metrics, or package.module of one's own.
        progress: called with (what is being done, done, in all).

    Returns:
        The scores and their circumstances; no scores in other processes than the first.

    Raises:
        ConfigError: an unknown metric, or one that gives something else than scores of its own.
        DataError: too few images, other images than the dataset's, or a metric that the data
            does not have.
    """
    modules, needs = metric_modules(metrics), needed(metrics)
    fake = _measured(images, reference, needs, progress)
    fake.need(*needs)
    if reference.has_images:
        reference.real.need(*needs)
        reference.training.need(*needs)
    scores: dict[str, Score] = {}
    if rank() == 0:
        with alone():
            for number, (name, module) in enumerate(modules.items()):
                if progress:
                    progress(f"computing {name}", number, len(modules))
                scores |= _checked_scores(name, module.scores(reference, fake), scores)
    used = reference.extractor if set(SEEN) & set(needs) else None
    return Evaluation(
        scores,
        len(fake),
        used.name if used else "none",
        used.resizer if used else "none",
        reference.name,
        reference.sha256,
    )


def metric_modules(names: Sequence[str]) -> dict[str, Any]:
    """What holds the metrics, modules as a rule, by name.

    Raises:
        ConfigError: an unknown one.
    """
    return {name: find_part(METRIC, name, where="--metrics") for name in names}


def needed(metrics: Sequence[str]) -> list[str]:
    """The columns that metrics look at; errors as of `metric_modules`."""
    return sorted({c for module in metric_modules(metrics).values() for c in module.NEEDS})


def to_be_seen(images: Source, reference: Reference) -> list[MeasuredSource]:
    """What `score_images` looks at, chunk by chunk: these images, and the reference's.

    Raises:
        DataError: other images than the dataset's.
    """
    found = [_measured(images, reference, [], None)]
    if reference.has_images:
        found += [reference.real, reference.training]
    return [one for one in dict.fromkeys(found) if isinstance(one, MeasuredSource)]


def score_network(
    network: GeneratorModule,
    reference: Reference,
    *,
    num_images: int,
    truncation: float | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """The figures of a network in eval mode that a run records, over the seeds 0, 1, ..."""
    draw = network_draw(network, truncation=truncation, device=device)
    source = Generated("a run's network", range(num_images), network.num_classes, draw)
    names = default_metrics(reference.dataset, conditional=bool(network.num_classes))
    return score_images(in_batches(source), reference, metrics=names).values


def default_metrics(dataset: Dataset, *, conditional: bool) -> list[str]:
    """FID, and what else the data allows: label accuracy, modes."""
    if dataset.points is not None or dataset.stacked:
        return ["fid", "modes"]
    return ["fid", "label_accuracy"] if conditional else ["fid"]


def _checked_scores(
    name: str, found: dict[str, Score], before: dict[str, Score]
) -> dict[str, Score]:
    """What a metric gives, if that is new scores."""
    if not isinstance(found, dict) or not all(isinstance(s, Score) for s in found.values()):
        raise ConfigError(f"--metrics: {name} gives {found!r}; expected a dict: name -> Score")
    if twice := found.keys() & before.keys():
        raise ConfigError(
            f"--metrics: {name} gives {', '.join(sorted(twice))}, as another metric does; call it"
            " otherwise, or leave one out"
        )
    return found


def _measured(
    images: Iterable[Batch] | Source,
    reference: Reference,
    needs: Sequence[str],
    progress: Progress | None,
) -> Measured:
    """The images, seen as far as they come only once."""

    def extractor() -> Extractor:
        return reference.extractor

    if isinstance(images, Iterable):
        checked = ((_checked(batch, reference), labels) for batch, labels in images)
        return measure_once(checked, extractor, *needs)
    _checked(images.read(range(1)), reference)
    return MeasuredSource(
        images,
        extractor,
        cache=reference.cache,
        device=reference.device,
        progress=partial(progress, "generating") if progress else None,
    )


def _checked(images: NDArray[Any], reference: Reference) -> NDArray[Any]:
    """The images, if the dataset's are of the same kind."""
    if not reference.has_images:
        return images
    dataset = reference.dataset
    dtype, expected = dataset.images.dtype, dataset.images.shape[1:]
    if images.dtype != dtype or images.shape[1:] != expected:
        raise DataError(
            f"images {images.dtype} {images.shape}: the dataset {dataset.path} has"
            f" {dtype} (N, {', '.join(map(str, expected))}); give --data of that shape, or moments"
            " (x.npz) with --extractor"
        )
    return images
