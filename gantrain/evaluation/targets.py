"""What can be measured: a run, a bundle, a folder, zip or npz of images, a prepared dataset."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ganinfer.bundle.archive import is_bundle
from ganinfer.drawing.images import to_uint8
from ganinfer.errors import ConfigError, DataError, DataNotFound
from ganinfer.sampler import Sampler
from ganinfer.scheduler.opening import Opening
from gantrain.data.dataset import Dataset
from gantrain.evaluation.pictures import Pictures, is_prepared
from gantrain.metrics._generated import Draw, Generated
from gantrain.metrics._measured import DatasetImages, Labels, Source
from gantrain.metrics._neighbours import some_rows
from gantrain.models._base import GeneratorModule
from gantrain.runs.checkpoint import load_discriminator, load_generator
from gantrain.runs.samples import draw


@dataclass(frozen=True)
class Target:
    """What is measured.

    Attributes:
        source: the images.
        classes: that they are of; empty without labels.
        trained_on, place: sha256 and folder of the data that the generator was trained on; None
            for images whose maker is not known.
        labelled: False if that was trained on without the labels that it may have.
        truncation: of the images, the default filled in.
        frequencies: what says how often each class is asked for, "data", "training data" or
            "uniform"; None where no classes are asked for.
        drawn_by: backend, device and precision of a bundle; None of others.
    """

    source: Source
    classes: list[str]
    trained_on: str | None = None
    place: Path | None = None
    labelled: bool = True
    truncation: float | None = None
    frequencies: str | None = None
    drawn_by: str | None = None


@contextmanager
def open_target(
    path: Path,
    *,
    num_images: int,
    seed: int = 0,
    truncation: float | None = None,
    labelled: bool = True,
    device: torch.device,
    opening: Opening | None = None,
) -> Iterator[Target]:
    """Open what `gan evaluate` measures.

    Args:
        path: folder of a run, one checkpoint file, a bundle, a prepared dataset, or a folder, zip
            or npz of images, or shards of them.
        num_images: how many are drawn of a generator, for the seeds seed, seed + 1, ...; of images
            that are there, at most as many.
        seed, truncation: of generated images; by default the truncation that G was trained with.
            Batch norms keep the statistics of the training, as they do in a bundle.
        labelled: False leaves labels of images out that are not prepared.
        device: where a run's network runs.
        opening: of a bundle: its backend, precision and so on.

    Yields:
        The target; nothing has been drawn yet.

    Raises:
        CheckpointError, BundleError, DataError: it cannot be used.
        ConfigError: what is no bundle is to be opened otherwise than by default.
    """
    seeds, opening = range(seed, seed + num_images), opening or Opening()
    other = path.exists() and (_is_run(path) or not is_generator(path))
    if opening != Opening() and other:
        raise ConfigError(f"{path}: backend, precision and so on are for bundles; leave them out")
    if not is_generator(path):
        yield some_of(open_images(path, truncation=truncation, labelled=labelled), num_images)
    elif _is_run(path):
        yield _of_run(path, seeds, truncation, device)
    else:
        with Sampler(path, **vars(opening)) as sampler:
            yield _of_bundle(sampler, seeds, truncation)


def is_generator(path: Path) -> bool:
    """Is it a run, a checkpoint or a bundle, and not images?"""
    return path.suffix == ".gan" or is_bundle(path) or _is_run(path)


def _is_run(path: Path) -> bool:
    return path.suffix == ".safetensors" or (path / "checkpoints").is_dir()


def open_images(path: Path, *, truncation: float | None, labelled: bool) -> Target:
    """All of the images that lie somewhere; arguments as in `open_target`.

    Raises:
        DataError: there are none, or a truncation is given.
    """
    if not path.exists():
        raise DataNotFound(
            f"{path}: nothing there; expected a run, a bundle, a prepared dataset, or a folder, zip"
            " or npz of images"
        )
    if truncation is not None:
        raise DataError(f"{path}: no generator, so it takes no truncation; leave it out")
    if is_prepared(path):
        dataset = Dataset(path)
        return Target(DatasetImages(dataset), dataset.classes)
    pictures = Pictures(path, labelled=labelled)
    return Target(pictures, pictures.classes)


def some_of(images: Target, num_images: int) -> Target:
    """So many of the images at most, chosen by seed: the first might be of one class."""
    source = images.source
    if len(source) <= num_images:
        return images
    some = source.some(num_images) if isinstance(source, Pictures) else _Chosen(source, num_images)
    return replace(images, source=some)


def _of_bundle(sampler: Sampler, seeds: range, truncation: float | None) -> Target:
    def draw_bundle(seeds: range, labels: Labels) -> NDArray[Any]:
        return sampler.sample(seeds=seeds, labels=labels, truncation=truncation)

    info = sampler.info
    truncation = info["default_truncation"] if truncation is None else truncation
    backend, device, precision = info["backend"], info["device"], info["precision"]
    running = (backend, device, precision, truncation, seeds.start)
    key = f"bundle {sampler.sha256} {running}"
    source = Generated(key, seeds, len(sampler.classes), draw_bundle)
    return Target(
        source,
        sampler.classes,
        sampler.dataset_sha256,
        sampler.dataset_path,
        sampler.dataset_labelled,
        truncation,
        drawn_by=f"{backend} on {device} in {precision}",
    )


def _of_run(path: Path, seeds: range, truncation: float | None, device: torch.device) -> Target:
    trained = load_generator(path)
    network, config = trained.network.to(device), trained.config
    truncation = config.train.truncation if truncation is None else truncation
    own = "".join(f" {part}" for part in config.own_parts)  # their code may change
    source = Generated(
        f"network {trained.sha256} {device.type} {truncation} {seeds.start}{own}",
        seeds,
        network.num_classes,
        network_draw(network, truncation=truncation, device=device),
        network,
        device,
        lambda: load_discriminator(path),
    )
    sha256, place, labelled = trained.dataset_sha256, trained.dataset_path, config.data.labels
    return Target(source, trained.classes, sha256, place, labelled, truncation)


def network_draw(
    network: GeneratorModule, *, truncation: float | None, device: torch.device | str
) -> Draw:
    """Seeds, labels -> images in the form of a dataset: uint8, or float32 if they are points."""

    def draw_network(seeds: range, labels: Labels) -> NDArray[Any]:
        images = draw(network, seeds, labels, truncation=truncation, device=device)
        if images.shape[2:] == (1, 1):
            return images.transpose(0, 2, 3, 1)
        return to_uint8(images).transpose(0, 2, 3, 1)

    return draw_network


class _Chosen:
    def __init__(self, source: Source, num_images: int) -> None:
        self._source, self._rows = source, some_rows(len(source), num_images)
        self.key = f"{num_images} of {source.key}"
        self.labels = None if source.labels is None else np.asarray(source.labels)[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, numbers: range) -> NDArray[Any]:
        """See Source."""
        rows = self._rows[numbers.start : numbers.stop]
        return np.concatenate([self._source.read(range(row, row + 1)) for row in rows])
