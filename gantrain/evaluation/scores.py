"""Images -> scores. Who made the images does not matter here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ganinfer.errors import ConfigError
from ganinfer.lookup import Held, Kind, find_part, held_function
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.distributed import alone, rank
from gantrain.evaluation.measuring import COLUMNS, measure_images
from gantrain.evaluation.targets import network_draw
from gantrain.metrics._classes import counts_by_name
from gantrain.metrics._generated import Generated
from gantrain.metrics._measured import SEEN, Batch, Source, in_batches
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Score
from gantrain.models._base import GeneratorModule

NEEDED = (*COLUMNS, "labels")
METRIC = Kind(
    "gantrain.metrics",
    {
        "scores": held_function("reference", "fake"),
        "NEEDS": Held(
            f"a tuple of {', '.join(NEEDED)}",
            lambda found: isinstance(found, tuple) and all(c in NEEDED for c in found),
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
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score images.

    Args:
        images: batches of images uint8 (N, H, W, C) with the labels (N,) that were asked for, or
            None, which are gone through once; or a source, of which what was seen is kept in the
            reference's cache.
        reference: the real images and the extractor.
        metrics: names of modules in gantrain.metrics, or package.module of one's own.
        classes: names of the classes that the labels count; those of the real images by default.
            They are matched with those by name.
        progress: called with (what is being done, done, in all).

    Returns:
        The scores and their circumstances; no scores in other processes than the first.

    Raises:
        ConfigError: an unknown metric, or one that gives something else than scores of its own.
        DataError: too few images, images or classes that are not like the dataset's, or a metric
            that the data does not have.
    """
    modules = metric_modules(metrics)
    needs = needs_of(modules.values())
    fake = measure_images(images, reference, needs, classes=classes, progress=progress)
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


def needs_of(modules: Iterable[Any]) -> list[str]:
    """What some metrics look at: names of COLUMNS, and labels."""
    return sorted({need for module in modules for need in module.NEEDS})


def metric_modules(names: Sequence[str]) -> dict[str, Any]:
    """What holds the metrics, modules as a rule, by name.

    Raises:
        ConfigError: an unknown one.
    """
    return {name: find_part(METRIC, name, where="--metrics") for name in names}


def score_network(
    network: GeneratorModule,
    reference: Reference,
    *,
    num_images: int,
    truncation: float | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> dict[str, float]:
    """The figures of a network in eval mode that a run records, over the seeds 0, 1, ...

    It is asked for each class as often as the dataset has it. progress: called with (what is being
    done, done, in all); what it raises ends the measurement.
    """
    draw = network_draw(network, truncation=truncation, device=device)
    source = Generated("a run's network", range(num_images), network.num_classes, draw)
    labels, classes = reference.dataset.labels, reference.classes
    if network.num_classes and labels is not None:
        source = source.asked_by(counts_by_name(labels, classes, classes))
    names = default_metrics(reference.dataset, conditional=bool(network.num_classes))

    def batches() -> Iterator[Batch]:
        done = 0
        for images, asked in in_batches(source):
            yield images, asked
            done += len(images)
            if progress:
                progress("generating", done, num_images)

    return score_images(batches(), reference, metrics=names, progress=progress).values


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
