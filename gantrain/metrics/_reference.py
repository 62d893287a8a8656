"""The real images that generated ones are compared with, seen through an extractor."""

import zipfile
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from ganinfer.errors import DataError
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.extractors._base import Extractor
from gantrain.metrics._measured import DatasetImages, Measured, MeasuredSource
from gantrain.metrics._moments import Moments


class Reference:
    """A dataset, and the extractor that looks at it and at what is compared with it.

    Everything is computed when it is first asked for: a metric that needs no extractor builds none.

    Attributes:
        name: for records.
        trained_on: what the generator was trained on, where that is known and another dataset.
        cache: folder of what has been measured.
        device: where figures are computed.
    """

    def __init__(
        self,
        dataset: Dataset | None,
        open_extractor: Callable[[], Extractor],
        *,
        moments: Moments | None = None,
        name: str | None = None,
        trained_on: Dataset | None = None,
        device: torch.device | str = "cpu",
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is computed yet.

        Args:
            dataset: the real images; None if nothing but their moments is known.
            open_extractor: makes the extractor.
            moments: of the features of all real images, if they are known.
            name: for records; the dataset's folder by default.
            trained_on, device: see the class.
            cache: the user's cache folder by default.
            progress: called with (what is being done, done, in all).
        """
        self._dataset, self._open_extractor, self._progress = dataset, open_extractor, progress
        self.trained_on, self.device, self.cache = trained_on, torch.device(device), cache
        self.name = name or (str(dataset.path) if dataset else "moments")
        if moments is not None:
            self.moments = moments

    @property
    def dataset(self) -> Dataset:
        """The real images.

        Raises:
            DataError: their moments are all that is known.
        """
        if self._dataset is None:
            raise DataError(
                "the reference is an npz of moments, and this metric needs the real images; give a"
                " prepared dataset with --data, or choose --metrics fid"
            )
        return self._dataset

    @property
    def sha256(self) -> str | None:
        """Of the dataset."""
        return None if self._dataset is None else self._dataset.sha256

    @property
    def has_images(self) -> bool:
        """False if moments are all that is known."""
        return self._dataset is not None

    @cached_property
    def extractor(self) -> Extractor:
        """The network."""
        return self._open_extractor()

    @cached_property
    def moments(self) -> Moments:
        """Of the features of all real images."""
        return self.real.moments

    @cached_property
    def real(self) -> Measured:
        """The real images."""
        return self.measured(self.dataset)

    @cached_property
    def training(self) -> Measured:
        """What the generator was trained on: another dataset, or the same."""
        return self.real if self.trained_on is None else self.measured(self.trained_on)

    def measured(self, dataset: Dataset) -> Measured:
        """A dataset's images, seen by the extractor as they are needed."""
        show = partial(self._progress, "measuring the real images") if self._progress else None
        return MeasuredSource(
            DatasetImages(dataset),
            lambda: self.extractor,
            cache=self.cache,
            device=self.device,
            progress=show,
        )


def save_moments(moments: Moments, path: Path) -> None:
    """Write an npz of `mu` (F,) and `sigma` (F, F), float64, as pytorch-fid reads and writes them.

    It holds `num_images` besides.
    """
    with path.open("wb") as file:
        np.savez(
            file,
            mu=moments.mean.cpu().numpy(),
            sigma=moments.covariance.cpu().numpy(),
            num_images=moments.num_images,
        )


def load_moments(path: Path, *, device: torch.device | str = "cpu") -> Moments:
    """Read an npz of `mu` (F,) and `sigma` (F, F).

    Raises:
        DataError: it is none.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            mean, covariance = archive["mu"], archive["sigma"]
            num_images = int(archive["num_images"]) if "num_images" in archive else len(mean) + 1
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: no npz of moments, `mu` and `sigma` ({error})") from None
    fits = mean.ndim == 1 and covariance.shape == (len(mean), len(mean))
    if not fits or not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise DataError(
            f"{path}: mu {mean.shape} and sigma {covariance.shape}; expected finite (F,) and (F, F)"
        )
    tensors = [torch.from_numpy(a.astype(np.float64)).to(device) for a in (mean, covariance)]
    return Moments.given(tensors[0], tensors[1], num_images)
