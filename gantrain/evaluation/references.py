"""What is compared with: the data that are given, or those that a generator was trained on."""

from functools import partial
from pathlib import Path

import torch

from ganinfer.errors import DataError, DataNotFound
from ganinfer.files import sha256_bytes
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.data.names import listed
from gantrain.data.opening import open_dataset
from gantrain.data.prepare import prepare
from gantrain.data.resolution import Resolution, resolution_of
from gantrain.data.sources.shards import shard_files
from gantrain.evaluation.pictures import Pictures, holds_moments, is_prepared
from gantrain.evaluation.targets import Target
from gantrain.extractors._open import open_extractor
from gantrain.metrics._generated import Generated
from gantrain.metrics._measured import default_cache
from gantrain.metrics._reference import Reference, load_moments


def open_reference(
    data: Path | Dataset,
    *,
    resolution: Resolution | None = None,
    split: str = "train",
    labelled: bool = True,
    extractor: str = "classifier",
    resizer: str | None = None,
    trained_on: Dataset | None = None,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Reference:
    """The real images, to be seen by an extractor.

    Args:
        data: a prepared dataset or shards; images as they lie somewhere, of which "classifier" has
            a prepared copy made in the cache; or an npz of moments (`mu`, `sigma`).
        resolution: of shards; by default that of their images.
        split: "train" or "test", of images that are not prepared, where there are both.
        labelled: False leaves labels of images out that are not prepared.
        extractor: "classifier", the dataset's own; "inception"; or the file of a network, ONNX or
            TorchScript.
        resizer: of "inception": "tf", "clean" or "pytorch".
        trained_on: what the generator was trained on, if that is another dataset.
        device: where images are seen and figures computed.
        cache: folder of what has been measured; the user's cache folder by default.
        progress: called with (what is being done, done, in all).

    Raises:
        DataError: the data cannot be used.
    """
    device = torch.device(device)
    dataset = data if isinstance(data, Dataset) else None
    moments = pictures = None
    if dataset is None:
        assert isinstance(data, Path)
        if holds_moments(data):
            moments = load_moments(data, device=device)
            if extractor == "classifier":
                raise DataError(
                    f"{data}: moments of a network's features; say which with --extractor"
                    " inception, or the network's file"
                )
        elif is_dataset(data):
            dataset = open_dataset(data, resolution=resolution, labelled=labelled)
        else:
            pictures = Pictures(data, split=split, labelled=labelled)
            if extractor == "classifier":
                dataset = _prepared(pictures, data, split, labelled, cache, progress)
    return Reference(
        dataset,
        lambda: open_extractor(
            extractor, dataset, resizer=resizer, device=device, progress=progress
        ),
        pictures=pictures,
        classes=pictures.classes if pictures else (),
        moments=moments,
        any_size=extractor != "classifier",
        name=str(data.path if isinstance(data, Dataset) else data),
        trained_on=trained_on,
        device=device,
        cache=cache,
        progress=progress,
    )


def _prepared(
    pictures: Pictures,
    path: Path,
    split: str,
    labelled: bool,
    cache: Path | None,
    progress: Progress | None,
) -> Dataset:
    """A prepared copy in the cache, where it is cleared away with what has been measured."""
    name = sha256_bytes(f"prepared {pictures.key}".encode())[:32]
    made = (cache or default_cache()) / name
    if not is_prepared(made):
        show = partial(progress, "preparing the data") if progress else None
        try:
            prepare(str(path), made, split=split, labelled=labelled, strict=True, progress=show)
        except DataError as error:
            raise DataError(
                f"{path}: {error}. The extractor 'classifier' takes images of one size; --extractor"
                " inception takes any"
            ) from None
    return Dataset(made)


def reference_of(
    target: Target,
    data: Path | None,
    *,
    split: str = "train",
    labelled: bool = True,
    extractor: str = "classifier",
    resizer: str | None = None,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Reference:
    """What a target is compared with: the data that are given, or those it was trained on.

    Raises:
        DataError: there are none, they are not those that it was trained on and were not given,
            or they have classes that the generator has not.
    """
    place = data or target.place
    if place is None:
        raise DataError("these images do not say what they are compared with; give --data")
    if data is None:
        check_there(place)
    real: Path | Dataset = place
    if data is None or is_dataset(place):
        wanted = target.labelled if data is None else labelled
        real = _open_real(place, target, wanted, progress)
    sha256 = real.sha256 if isinstance(real, Dataset) else None
    if data is None and sha256 != target.trained_on:
        raise DataError(
            f"{place}: sha256 {str(sha256)[:12]}...; the generator was trained on"
            f" {str(target.trained_on)[:12]}...; give its data with --data"
        )
    reference = open_reference(
        real,
        split=split,
        labelled=labelled,
        extractor=extractor,
        resizer=resizer,
        trained_on=None if sha256 == target.trained_on else _training_set(target, progress),
        device=device,
        cache=cache,
        progress=progress,
    )
    _check_classes(reference, target)
    return reference


def check_there(place: Path) -> None:
    """Raise a DataNotFound if the data that a generator was trained on are gone."""
    if not place.exists():
        raise DataNotFound(
            f"{place}: the data that it was trained on are not there; give them with --data"
        )


def is_dataset(path: Path) -> bool:
    """Is it prepared, or shards, whose images are decoded where they are looked at?"""
    return is_prepared(path) or bool(shard_files(path))


def _open_real(place: Path, target: Target, labelled: bool, progress: Progress | None) -> Dataset:
    """A prepared dataset, or shards whose images are made as large as the target's."""
    resolution = None
    if not is_prepared(place):
        height, width = target.source.read(range(1))[0].shape[:2]
        resolution = resolution_of((height, width))
    return open_dataset(
        place,
        resolution=resolution,
        labelled=labelled,
        progress=partial(progress, "looking at the shards") if progress else None,
    )


def _training_set(target: Target, progress: Progress | None) -> Dataset | None:
    """What a generator was trained on, if it is still there."""
    if target.place is None or not target.place.exists():
        return None
    try:
        dataset = _open_real(target.place, target, target.labelled, progress)
    except DataError:  # something else lies there now
        return None
    return dataset if dataset.sha256 == target.trained_on else None


def _check_classes(reference: Reference, target: Target) -> None:
    """Refuse data with classes that the generator cannot be asked for."""
    if not isinstance(target.source, Generated) or not target.classes:
        return
    if strange := [name for name in reference.classes if name not in target.classes]:
        raise DataError(
            f"{reference.name}: {len(reference.classes)} classes, and the generator has no"
            f" {listed(strange)}; it was trained on {len(target.classes)} classes"
            f" ({listed(target.classes)}): classes are matched by name; give data of these with"
            " --data"
        )
