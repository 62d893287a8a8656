"""Images as they lie somewhere, not prepared: a folder, zip or npz, IDX, CIFAR, shards."""

import zipfile
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError, DataNotFound, MissingExtra
from ganinfer.files import sha256_bytes
from gantrain.data.sources import open_source
from gantrain.data.sources.trees import Labelling
from gantrain.metrics._neighbours import some_rows


def is_prepared(path: Path) -> bool:
    """Did `gan prepare` make this folder?"""
    return (path / "dataset.json").exists()


def holds_moments(path: Path) -> bool:
    """Is it an npz of `mu` and `sigma`?"""
    try:
        with zipfile.ZipFile(path) as archive:
            return "mu.npy" in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


class Pictures:
    """Images of any sizes, grey or RGB, as a source; a broken one is an error that names it.

    Attributes:
        classes: names, empty without labels. labels: int64 (N,), or None.
    """

    def __init__(self, path: Path, *, split: str = "train", labelled: bool = True) -> None:
        """Nothing is decoded yet.

        Args:
            path: whatever `gan prepare` reads.
            split: "train" or "test", where there are both.
            labelled: False leaves all labels out.

        Raises:
            DataError: nothing there, or nothing that is understood.
        """
        if not path.exists():
            raise DataNotFound(f"{path}: nothing there; expected a dataset, prepared or not")
        self._path, self._files = path, open_source(str(path), split, Labelling(wanted=labelled))
        self._rows = np.arange(len(self._files.names))
        self._shape: tuple[int, ...] | None = None
        self.classes, self.labels = self._files.classes, self._files.labels
        times = [file.stat().st_mtime_ns for file in (path, *self._files.files)]
        names = sha256_bytes("\n".join([split, *self._files.names, *map(str, times)]).encode())
        self._all = f"of files {path.resolve()} {names}{'' if labelled else ' without labels'}"
        self.key = f"{len(self)} {self._all}"

    def __len__(self) -> int:
        return len(self._rows)

    def some(self, most: int) -> "Pictures":
        """So many of them at most, chosen by seed: the first might be of one class."""
        made, labels = copy(self), self._files.labels
        made._rows = some_rows(len(self._files.names), most)
        made.labels = None if labels is None else labels[made._rows]
        made.key = f"{len(made)} {self._all}"
        return made

    def of_shape(self, shape: tuple[int, ...]) -> "Pictures":
        """The same, brought to (H, W, C) where that changes only how colours are written.

        Grey images become RGB, and RGB images without colours grey.
        """
        made = copy(self)
        made._shape, made.key = shape, f"{self.key} as {shape}"
        return made

    def read(self, numbers: range) -> NDArray[Any] | list[NDArray[Any]]:
        """See Source; of sizes that differ, a list."""
        images = [self._read(int(n)) for n in self._rows[numbers.start : numbers.stop]]
        return np.stack(images) if len({image.shape for image in images}) == 1 else images

    def _read(self, number: int) -> NDArray[np.uint8]:
        name = f"{self._path}: {self._files.names[number]}"
        try:
            image = self._files.read(number)
        except MissingExtra:
            raise
        except Exception as error:  # decoders raise whatever they like
            raise DataError(f"{name}: broken image ({error}); take it out, or mend it") from None
        image = image[:, :, None] if image.ndim == 2 else image
        return image if self._shape is None else _brought_to(self._shape, image, name)


def _brought_to(shape: tuple[int, ...], image: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    channels = image.shape[2], shape[2]
    if channels == (1, 3):
        image = np.repeat(image, 3, axis=2)
    elif channels == (3, 1) and (image == image[:, :, :1]).all():
        image = image[:, :, :1]
    if image.shape != shape:
        raise DataError(
            f"{name} is {image.shape} and the data {shape}; gan prepare makes images of one size,"
            " and --extractor inception takes any"
        )
    return image
