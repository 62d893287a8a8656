"""Where pictures come from: a module for each kind of source, each giving the same `Source`."""

import dataclasses
from pathlib import Path

from ganinfer.errors import ConfigError, DataError, DataNotFound
from gantrain.data.source import Source
from gantrain.data.sources.arrays import npy, npz
from gantrain.data.sources.cifar import cifar, is_cifar
from gantrain.data.sources.digits import digits
from gantrain.data.sources.folder import folder
from gantrain.data.sources.hub import SCHEME, fetched
from gantrain.data.sources.idx import PATTERN, idx, idx_folder
from gantrain.data.sources.lmdb import lmdb_of
from gantrain.data.sources.shards import shards, shards_in
from gantrain.data.sources.tar import ENDINGS, Tar, tar_tree
from gantrain.data.sources.trees import SPLITS, Labelling, Tree, pictures_of
from gantrain.data.sources.zips import zip_tree

FORMATS = (
    "'digits', 'ring8', 'grid25', hf://datasets/owner/name, a folder, zip or tar of images (class"
    " folders, a label file or flat), a folder of IDX files (MNIST), of CIFAR-10/100 or of an LMDB,"
    " an npz or npy file, a tar (WebDataset) or Parquet file or a folder of such shards"
)
_ALL = Labelling()


def open_source(source: str, split: str = "train", labelling: Labelling = _ALL) -> Source:
    """Find out what `source` is and open it.

    Args:
        source: "digits", a dataset of the Hugging Face Hub, or a path (./digits for a folder of
            that name); see FORMATS.
        split: "train", "test" or "val", for sources that have them.
        labelling: where labels come from.

    Raises:
        DataError: nothing there, or nothing that is understood.
        MissingExtra: a package that reads it is not installed.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r}: expected {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    opened = _open(source, split)
    if isinstance(opened, Tree):
        return pictures_of(opened, split, labelling)
    if labelling.file is not None:
        raise DataError(
            f"--labels {labelling.file}: goes with a folder, zip or tar of images; {source} has"
            " labels of its own or none"
        )
    if not labelling.wanted:
        return dataclasses.replace(opened, classes=[], labels=None)
    return opened


def _open(source: str, split: str) -> Source | Tree:
    if source == "digits":  # a folder of that name is ./digits
        return _whole(digits(), split)
    if source.startswith(SCHEME):
        return _of_folder(fetched(source), split)
    path = Path(source)
    if not path.exists():
        raise DataNotFound(f"{source}: no such file or folder; expected {FORMATS}")
    if path.is_dir():
        return _of_folder(path, split)
    name = path.name.lower()
    if name.endswith(".zip"):
        return zip_tree(path)
    if name.endswith(ENDINGS):
        tar = Tar(path)
        return _whole(shards([path], source), split) if tar.is_webdataset else tar_tree(path, tar)
    if name.endswith(".parquet"):
        return _whole(shards([path], source), split)
    if name.endswith(".npz"):
        return npz(path, split)
    if name.endswith(".npy"):
        return _whole(npy(path), split)
    if name.endswith(".mdb"):
        return _whole(lmdb_of(path.parent), split)
    if "idx3-ubyte" in path.name:
        return idx(path)
    raise DataError(f"{source}: not a format that is understood; expected {FORMATS}")


def _of_folder(path: Path, split: str) -> Source | Tree:
    inside = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    if len(inside) == 1 and inside[0].is_dir() and inside[0].name.lower() not in SPLITS:
        only = _of_folder(inside[0], split)  # one folder around it all
        return folder(path) if isinstance(only, Tree) else only
    if (path / "images.npy").exists() and (path / "dataset.json").exists():
        raise DataError(f"{path}: is a prepared dataset; train with it as it is")
    if any(path.glob(PATTERN)):
        return idx_folder(path, split)
    if is_cifar(path):
        return cifar(path, split)
    if (path / "data.mdb").exists():
        return _whole(lmdb_of(path), split)
    if found := shards_in(path, split):
        return shards(found, str(path))
    return folder(path)


def _whole(source: Source, split: str) -> Source:
    """A source that has no splits: all of it is "train"."""
    if split != "train":
        raise DataError(f"split {split!r}: this source has no splits; leave --split out")
    return source
