"""What is compared with: the data that are given, or those that a generator was trained on."""

from functools import partial
from pathlib import Path

import torch

from ganinfer.errors import DataError
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.data.opening import open_dataset
from gantrain.evaluation.targets import Target
from gantrain.extractors._open import open_extractor
from gantrain.metrics._reference import Reference, load_moments


def open_reference(
    data: Path | Dataset,
    *,
    resolution: int | None = None,
    extractor: str = "classifier",
    resizer: str | None = None,
    trained_on: Dataset | None = None,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Reference:
    """The real images, to be seen by an extractor.

    Args:
        data: a prepared dataset, shards, or an npz of moments (`mu`, `sigma`).
        resolution: of shards; by default that of their images.
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
    moments = None
    if isinstance(data, Path) and data.suffix == ".npz":
        moments = load_moments(data, device=device)
        if extractor == "classifier":
            raise DataError(
                f"{data}: moments of a network's features; say which with --extractor inception, or"
                " the network's file"
            )
    elif dataset is None:
        assert isinstance(data, Path)
        dataset = open_dataset(data, resolution=resolution)
    return Reference(
        dataset,
        lambda: open_extractor(
            extractor, dataset, resizer=resizer, device=device, progress=progress
        ),
        moments=moments,
        name=str(dataset.path if dataset else data),
        trained_on=trained_on,
        device=device,
        cache=cache,
        progress=progress,
    )


def reference_of(
    target: Target,
    data: Path | None,
    *,
    extractor: str = "classifier",
    resizer: str | None = None,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Reference:
    """What a target is compared with: the data that are given, or those it was trained on.

    Raises:
        DataError: there are none, or they are of other classes than the target.
    """
    place = data or target.place
    if place is None:
        raise DataError("these images do not say what they are compared with; give --data")
    real: Path | Dataset = place
    trained_on = None
    if place.suffix != ".npz":
        real = _open_real(place, target, progress)
        _check_classes(real, target, given=data is not None)
        if real.sha256 != target.trained_on and target.place and target.place.exists():
            trained_on = _open_real(target.place, target, progress)
    return open_reference(
        real,
        extractor=extractor,
        resizer=resizer,
        trained_on=trained_on,
        device=device,
        cache=cache,
        progress=progress,
    )


def _open_real(place: Path, target: Target, progress: Progress | None) -> Dataset:
    """A prepared dataset, or shards whose images are made as large as the target's."""
    prepared = (place / "dataset.json").exists()
    resolution = None if prepared else target.source.read(range(1)).shape[1]
    return open_dataset(
        place,
        resolution=resolution,
        progress=partial(progress, "looking at the shards") if progress else None,
    )


def _check_classes(dataset: Dataset, target: Target, *, given: bool) -> None:
    """Refuse other classes than the target's and, unless they were given, other data."""
    fits = not target.classes or len(target.classes) == dataset.num_classes
    if not fits or (not given and dataset.sha256 != target.trained_on):
        trained_sha256 = f", {target.trained_on[:12]}..." if target.trained_on else ""
        raise DataError(
            f"{dataset.path}: {dataset.num_classes} classes, sha256 {dataset.sha256[:12]}...; the"
            f" generator was trained on {len(target.classes)} classes{trained_sha256}; give its"
            " data with --data"
        )
