"""What can be measured: a run, a bundle, a folder, zip or npz of images, a prepared dataset."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ganinfer.bundle.archive import is_bundle
from ganinfer.drawing.images import to_uint8
from ganinfer.errors import DataError
from ganinfer.files import sha256_bytes
from ganinfer.sampler import Sampler
from gantrain.data.dataset import Dataset
from gantrain.data.sources import open_source
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
        truncation: of the images, the default filled in.
    """

    source: Source
    classes: list[str]
    trained_on: str | None = None
    place: Path | None = None
    truncation: float | None = None


@contextmanager
def open_target(
    path: Path,
    *,
    num_images: int,
    seed: int = 0,
    truncation: float | None = None,
    device: torch.device,
) -> Iterator[Target]:
    """Open what `gan evaluate` measures.

    Args:
        path: folder of a run, one checkpoint file, a bundle, a prepared dataset, or a folder, zip
            or npz of images, or shards of them.
        num_images: how many are drawn of a generator, for the seeds seed, seed + 1, ...; of images
            that are there, at most as many.
        seed, truncation: of generated images; by default the truncation that G was trained with.
            Batch norms keep the statistics of the training, as they do in a bundle.
        device: where a run's network runs.

    Yields:
        The target; nothing has been drawn yet.

    Raises:
        CheckpointError, BundleError, DataError: it cannot be used.
    """
    seeds = range(seed, seed + num_images)
    if path.suffix == ".gan" or is_bundle(path):
        with Sampler(path) as sampler:
            yield _of_bundle(sampler, seeds, truncation)
    elif path.suffix == ".safetensors" or (path / "checkpoints").is_dir():
        yield _of_run(path, seeds, truncation, device)
    elif (path / "dataset.json").exists():
        dataset = Dataset(path)
        yield Target(_some(DatasetImages(dataset), num_images), dataset.classes)
    elif not path.exists():
        raise DataError(
            f"{path}: nothing there; expected a run, a bundle, a prepared dataset, or a folder, zip"
            " or npz of images"
        )
    else:
        if truncation is not None:
            raise DataError(f"{path}: no generator, so it takes no truncation; leave it out")
        images = ImageFiles(path)
        yield Target(_some(images, num_images), images.classes)


def _of_bundle(sampler: Sampler, seeds: range, truncation: float | None) -> Target:
    def draw_bundle(seeds: range, labels: Labels) -> NDArray[Any]:
        return sampler.sample(seeds=seeds, labels=labels, truncation=truncation)

    info = sampler.info
    truncation = info["default_truncation"] if truncation is None else truncation
    running = (info["backend"], info["device"], info["precision"], truncation, seeds.start)
    key = f"bundle {sampler.sha256} {running}"
    source = Generated(key, seeds, len(sampler.classes), draw_bundle)
    place = sampler.dataset_path
    return Target(source, sampler.classes, sampler.dataset_sha256, place, truncation)


def _of_run(path: Path, seeds: range, truncation: float | None, device: torch.device) -> Target:
    trained = load_generator(path)
    truncation = trained.config.train.truncation if truncation is None else truncation
    network = trained.network.to(device)
    own = "".join(f" {part}" for part in trained.config.own_parts)  # their code may change
    source = Generated(
        f"network {trained.sha256} {device.type} {truncation} {seeds.start}{own}",
        seeds,
        network.num_classes,
        network_draw(network, truncation=truncation, device=device),
        network,
        device,
        lambda: load_discriminator(path),
    )
    place = trained.dataset_path
    return Target(source, trained.classes, trained.dataset_sha256, place, truncation)


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


class ImageFiles:
    """Images of a folder, zip, npz or shards, as they are: all of one size, grey or RGB."""

    def __init__(self, path: Path) -> None:
        self._path, self._files = path, open_source(str(path), "train")
        self.classes = self._files.classes
        self._shape = _channels_last(self._files.read(0)).shape
        times = [file.stat().st_mtime_ns for file in (path, *self._files.files)]
        names = "\n".join([*self._files.names, *map(str, times)])
        self.labels = self._files.labels
        self.key = f"files {path.resolve()} {sha256_bytes(names.encode())}"

    def __len__(self) -> int:
        return len(self._files.names)

    def read(self, numbers: range) -> NDArray[Any]:
        """See Source."""
        images = []
        for number in numbers:
            image = _channels_last(self._files.read(number))
            if image.shape != self._shape:
                raise DataError(
                    f"{self._path}: {self._files.names[number]} is {image.shape} and the first"
                    f" image {self._shape}; expected images of one size (gan prepare makes them so)"
                )
            images.append(image)
        return np.stack(images)


def _channels_last(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image[:, :, None] if image.ndim == 2 else image


def _some(source: Source, num_images: int) -> Source:
    """The whole source, or num_images of it chosen by seed: the first might be of one class."""
    if len(source) <= num_images:
        return source
    return _Chosen(source, num_images)


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
