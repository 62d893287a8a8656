"""Several runs, bundles or folders against the same data: which is better, and how sure is that?"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from ganinfer.errors import ConfigError, DataError
from ganinfer.progress import Progress
from gantrain.evaluation.asked import Asked
from gantrain.evaluation.evaluate import Record, record_of
from gantrain.evaluation.frequencies import Frequencies
from gantrain.evaluation.measuring import measure_images
from gantrain.evaluation.resampling import Difference, Found, differences
from gantrain.evaluation.scores import metric_modules, needs_of
from gantrain.evaluation.targets import Target, is_generator, open_images
from gantrain.metrics._generated import Generated
from gantrain.metrics._measured import Source
from gantrain.metrics._neighbours import some_rows
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Parts

METRICS = ("fid", "kid", "precision_recall", "density_coverage")
NUM_SAMPLES = 36  # of each side, to look at

Images = Sequence[NDArray[Any]]  # uint8 (H, W, C) each


@dataclass(frozen=True)
class Comparison:
    """What is known of several targets.

    Attributes:
        records: of each target, in order, over the same number of images.
        better: of each score, which values are.
        differences: of each score between every two targets.
        samples: images of each target, those of the same seeds where they are generated.
        real: images of the data.
    """

    records: list[Record]
    better: dict[str, Better]
    differences: list[Difference]
    samples: list[Images]
    real: Images


def compare(
    paths: Sequence[Path],
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
    progress: Progress | None = None,
) -> Comparison:
    """Score several targets alike, and tell which differences are more than chance.

    All are measured over as many images as the smallest has, for FID and its kin depend on it.

    Args:
        paths: two or more; see `open_target`.
        data: what all are compared with; by default what they were trained on, if that is one.
        metrics: as in `score_images`; METRICS by default.
        num_images, seed, truncation, class_frequencies: of the images; see `evaluate`.
        split, labelled, extractor, resizer: see `open_reference`.
        device: where the networks run.
        cache: folder of what has been measured; the user's cache folder by default.
        progress: called with (what is being done, done, in all).

    Raises:
        ConfigError: fewer than two targets.
        DataError: they cannot be measured against the same data, and why.
    """
    if len(paths) < 2:
        raise ConfigError(f"targets to compare: found {len(paths)}; expected two or more")
    device = torch.device(device)
    images = {
        path: open_images(path, truncation=truncation, labelled=labelled)
        for path in paths
        if not is_generator(path)
    }
    num_images = min([num_images, *(len(target.source) for target in images.values())])
    records, found, samples = [], [], []
    datasets: dict[str, str] = {}
    for path in paths:
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
        )
        with asked.opened(progress, images=images.get(path)) as (target, reference):
            datasets[reference.sha256 or reference.name] = reference.name
            if len(datasets) > 1:
                raise DataError(
                    f"found generators of {' and '.join(datasets.values())}; say with --data what"
                    " all are compared with"
                )
            modules = metric_modules(metrics or (METRICS if reference.has_images else ["fid"]))
            record = record_of(
                path, target, reference, metrics=list(modules), seed=seed, progress=progress
            )
            records.append(record)
            parts = _parts(target, reference, modules.values())
            found.append(Found(record.scores, parts, _drawn_together(path, target)))
            samples.append(_some(target.source))
    better = {name: goal for module in modules.values() for name, goal in module.BETTER.items()}
    real = _some(reference.source) if reference.source else []
    return Comparison(records, better, differences(found, better), samples, real)


def _parts(target: Target, reference: Reference, modules: Iterable[Any]) -> Parts:
    """Of the scores that know them; the images have been seen already."""
    fake = measure_images(target.source, reference, needs_of(modules), classes=target.classes)
    found: Parts = {}
    for module in modules:
        if hasattr(module, "parts"):
            found |= module.parts(reference, fake)
    return found


def _drawn_together(path: Path, target: Target) -> Hashable:
    """Alike for generators of the same seeds; of images that lie somewhere, each their own."""
    source = target.source
    return source.seeds if isinstance(source, Generated) else path


def _some(source: Source) -> Images:
    """Images of the same numbers of every source that is as large."""
    return [source.read(range(n, n + 1))[0] for n in some_rows(len(source), NUM_SAMPLES).tolist()]
