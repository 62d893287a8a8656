"""The real images that generated ones are compared with, seen through an extractor."""

import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from ganinfer.errors import DataError
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.extractors._base import Extractor
from gantrain.metrics._measured import DatasetImages, Measured, MeasuredSource, Source
from gantrain.metrics._moments import Moments


class Reference:
    """Real images, and the extractor that looks at them and at what is compared with them.

    Everything is computed when it is first asked for: a metric that needs no extractor builds none.

    Attributes:
        name: for records.
        source: the real images; None if their moments are all that is known.
        classes: names of the images' classes; empty without labels, and of moments.
        any_size: the extractor takes images of any height and width, grey or not.
        trained_on: what the generator was trained on, where that is known and another dataset.
        cache: folder of what has been measured.
        device: where figures are computed.
    """

    def __init__(
        self,
        dataset: Dataset | None,
        open_extractor: Callable[[], Extractor],
        *,
        pictures: Source | None = None,
        classes: Sequence[str] = (),
        moments: Moments | None = None,
        any_size: bool = False,
        name: str | None = None,
        trained_on: Dataset | None = None,
        device: torch.device | str = "cpu",
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Nothing is computed yet.

        Args:
            dataset: the real images; None if they are not prepared.
            open_extractor: makes the extractor.
            pictures: the real images as they lie somewhere, if they are not prepared.
            classes: of the pictures.
            moments: of the features of all real images, if they are known.
            any_size: see the class.
            name: for records; the dataset's folder by default.
            trained_on, device: see the class.
            cache: the user's cache folder by default.
            progress: called with (what is being done, done, in all).
        """
        self._dataset, self._open_extractor, self._progress = dataset, open_extractor, progress
        self.source = pictures if dataset is None else DatasetImages(dataset)
        self.classes = list(classes) if dataset is None else dataset.classes
        self.any_size, self.trained_on = any_size, trained_on
        self.device, self.cache = torch.device(device), cache
        self.name = name or (str(dataset.path) if dataset else "moments")
        if moments is not None:
            self.moments = moments

    @property
    def dataset(self) -> Dataset:
        """The real images, prepared.

        Raises:
            DataError: they are not.
        """
        if self._dataset is None:
            self._need_images()
            raise DataError(
                f"{self.name}: pictures of any size, and this metric needs a prepared dataset; make"
                " one with gan prepare, and give it with --data"
            )
        return self._dataset

    def _need_images(self) -> Source:
        if self.source is None:
            raise DataError(
                "the reference is an npz of moments, and this metric needs the real images; give a"
                " prepared dataset with --data, or choose --metrics fid"
            )
        return self.source

    @property
    def sha256(self) -> str | None:
        """Of the dataset."""
        return None if self._dataset is None else self._dataset.sha256

    @property
    def has_images(self) -> bool:
        """False if moments are all that is known."""
        return self.source is not None

    @property
    def is_prepared(self) -> bool:
        """Are the real images a prepared dataset?"""
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
        """The real images.

        Raises:
            DataError: their moments are all that is known.
        """
        return self._measured(self._need_images())

    @cached_property
    def training(self) -> Measured:
        """What the generator was trained on: another dataset, or the same."""
        return self._measured(DatasetImages(self.trained_on)) if self.trained_on else self.real

    def _measured(self, images: Source) -> Measured:
        """Images, seen by the extractor as they are needed."""
        show = partial(self._progress, "measuring the real images") if self._progress else None
        return MeasuredSource(
            images,
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
