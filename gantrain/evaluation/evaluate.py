"""A run, a bundle or pictures, and what they are to be like -> a record of scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from ganinfer import __version__
from ganinfer.engines.cluster import Cluster
from ganinfer.progress import Progress
from ganinfer.scheduler.opening import Opening
from gantrain.evaluation.asked import Asked
from gantrain.evaluation.by_actors import measure_by
from gantrain.evaluation.frequencies import Frequencies
from gantrain.evaluation.scores import Evaluation, default_metrics, score_images
from gantrain.evaluation.targets import Target, open_target
from gantrain.extractors._open import open_extractor
from gantrain.metrics._measured import MeasuredSource
from gantrain.metrics._moments import Moments
from gantrain.metrics._reference import Reference

CURVE_METRICS = ("fid", "inception_score", "precision_recall")  # of a sweep's curve


@dataclass(frozen=True)
class Record(Evaluation):
    """An evaluation that can be done again.

    Attributes:
        target: what was measured. seed: of its first image. truncation: of its latents, or None.
        class_frequencies: what says how often a conditional generator was asked for each class:
            "data", "training data" or "uniform"; None of others.
        drawn_by: what ran a bundle, "onnxruntime on cpu in int8"; None of others.
        device: where. versions: of what computed it.
    """

    target: str
    seed: int
    truncation: float | None
    class_frequencies: str | None
    drawn_by: str | None
    device: str
    versions: dict[str, str]


def evaluate(
    path: Path,
    data: Path | None = None,
    *,
    metrics: Sequence[str] | None = None,
    num_images: int = 10_000,
    seed: int = 0,
    truncation: float | None = None,
    class_frequencies: Frequencies = "data",
    split: str = "train",
    labelled: bool = True,
    extractor: str = "classifier",
    resizer: str | None = None,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    opening: Opening | None = None,
    cluster: Cluster | None = None,
    progress: Progress | None = None,
) -> Record:
    """Score a run, a bundle or images that lie somewhere; what `gan evaluate` does.

    Args:
        path: see `open_target`.
        data: dataset, prepared or as it lies somewhere, or npz of moments; by default what the
            generator was trained on.
        metrics: as in `evaluate`; a few that the data allow by default.
        num_images, seed, truncation: of the images; see `open_target`.
        class_frequencies: how often a conditional generator is asked for each class: as often as
            the data has it, "data"; or all alike, "uniform".
        split, labelled, extractor, resizer: see `open_reference`.
        device: where the networks run.
        cache: folder of what has been measured; the user's cache folder by default.
        opening: of a bundle: its backend, precision and so on.
        cluster: of Ray, whose actors draw and see the images; see `measure_by`.
        progress: called with (what is being done, done, in all).

    Returns:
        The scores and all that they depend on.

    Raises:
        GanError: something cannot be used, and why.
    """
    device = torch.device(device)
    asked = Asked(
        path=path,
        data=data,
        num_images=num_images,
        seed=seed,
        truncation=truncation,
        class_frequencies=class_frequencies,
        split=split,
        labelled=labelled,
        extractor=extractor,
        resizer=resizer,
        device=device,
        cache=cache,
        opening=opening,
    )
    with asked.opened(progress) as (target, reference):
        names = metrics or _metrics_for(target, reference)
        if cluster is not None:
            measure_by(cluster, asked, target, reference, names, progress)
        return record_of(path, target, reference, metrics=names, seed=seed, progress=progress)


def record_of(
    path: Path,
    target: Target,
    reference: Reference,
    *,
    metrics: Sequence[str],
    seed: int,
    progress: Progress | None = None,
) -> Record:
    """Score an open target; arguments as in `evaluate`."""
    found = score_images(
        target.source, reference, metrics=metrics, classes=target.classes, progress=progress
    )
    return Record(
        **vars(found),
        target=str(path),
        seed=seed,
        truncation=target.truncation,
        class_frequencies=target.frequencies,
        drawn_by=target.drawn_by,
        device=str(reference.device),
        versions={"ganpipe": __version__, "torch": torch.__version__, "numpy": np.__version__},
    )


def target_moments(
    path: Path,
    *,
    num_images: int,
    extractor: str,
    resizer: str | None = None,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Moments:
    """Moments of the features of a target's images; arguments as in `evaluate`."""
    device = torch.device(device)
    with open_target(path, num_images=num_images, device=device) as target:
        opened = partial(open_extractor, extractor, None, resizer=resizer, device=device)
        measured = MeasuredSource(
            target.source,
            lru_cache(opened),
            cache=cache,
            device=device,
            progress=partial(progress, "measuring") if progress else None,
        )
        return measured.moments


def _metrics_for(target: Target, reference: Reference) -> list[str]:
    """What `gan evaluate` tells of a target by default; of classes only where names agree."""
    if not reference.has_images:
        return ["fid"]
    names = ["fid"]
    if reference.is_prepared:
        alike = bool(target.classes) and set(target.classes) <= set(reference.classes)
        names = default_metrics(reference.dataset, conditional=alike)
    if not reference.extractor.sees_classes:
        names = [name for name in names if name != "label_accuracy"]
    return [*names, "kid", "precision_recall", "density_coverage"]
