"""Where images come from: one function a format, each giving the same small `Source`."""

import gzip
import itertools
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError, missing_extra
from gantrain.data.pictures import Pixels, Source, decode, is_image
from gantrain.data.shards import shards, shards_in

SPLITS = ("train", "test")
FORMATS = (
    "'digits', 'ring8', 'grid25', a folder of IDX files (MNIST), a folder or zip of images (class"
    " folders or flat), an npz file, a tar (WebDataset) or Parquet file or a folder of such shards,"
    " or a folder of CIFAR-10/100 binary files"
)


def open_source(source: str, split: str) -> Source:
    """Find out what `source` is and open it.

    Args:
        source: "digits", or a path (./digits for a folder of that name); see FORMATS.
        split: "train" or "test", for sources that have both.

    Raises:
        DataError: nothing there, or nothing that is understood.
    """
    path = Path(source)
    if split not in SPLITS:
        raise DataError(f"split {split!r}: expected {' or '.join(SPLITS)}")
    if source == "digits":  # a folder of that name is ./digits
        return _whole(digits(), split)
    if not path.exists():
        raise DataError(f"{source}: no such file or folder; expected {FORMATS}")
    if path.is_dir():
        if any(path.glob("*-images?idx3-ubyte*")):
            name = "train" if split == "train" else "t10k"
            return idx(_one(path, f"{name}-images?idx3-ubyte*"))
        if (path / "data_batch_1.bin").exists() or (path / "train.bin").exists():
            return cifar(path, split)
        if found := shards_in(path, split):
            return shards(found, source)
        return folder(path / split) if (path / split).is_dir() else _whole(folder(path), split)
    if path.suffix == ".zip":
        return zip_archive(path, split)
    if path.suffix in (".tar", ".parquet"):
        return _whole(shards([path], source), split)
    if path.suffix == ".npz":
        return npz(path, split)
    if "idx3-ubyte" in path.name:
        return idx(path)
    raise DataError(f"{source}: not a format that is understood; expected {FORMATS}")


def digits() -> Source:
    """scikit-learn's handwritten digits: 1,797 grey 8x8 images, values 0-16 spread to 0-255."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise missing_extra("sklearn", error) from None
    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return _in_memory("digits", pixels, data.target.astype(np.int64), [str(n) for n in range(10)])


def idx(path: Path) -> Source:
    """IDX files, plain or gzip: images beside their labels (MNIST's four files and its kin)."""
    images = _read_idx(path, ndim=3)
    plain = path.name.replace("images", "labels").replace("idx3", "idx1").removesuffix(".gz")
    candidates = (path.with_name(plain), path.with_name(f"{plain}.gz"))
    labels_path = next((candidate for candidate in candidates if candidate.exists()), None)
    if labels_path is None:
        return _in_memory(path.name, images, None, [])
    labels = _read_idx(labels_path, ndim=1).astype(np.int64)
    if len(labels) != len(images):
        raise DataError(
            f"{labels_path}: {len(labels)} labels for the {len(images)} images of {path}"
        )
    return _in_memory(path.name, images, labels, [str(n) for n in range(int(labels.max()) + 1)])


def cifar(path: Path, split: str) -> Source:
    """CIFAR-10 or CIFAR-100, binary version: label byte(s), then 3072 bytes, channel first."""
    ten = (path / "data_batch_1.bin").exists()
    pattern = (
        {"train": "data_batch_*.bin", "test": "test_batch.bin"}[split] if ten else f"{split}.bin"
    )
    names_file = path / ("batches.meta.txt" if ten else "fine_label_names.txt")
    label_bytes = 1 if ten else 2  # CIFAR-100: coarse, then fine
    files = sorted(path.glob(pattern))
    if not files:
        raise DataError(f"{path}: no {pattern}; expected the files of the binary version")
    records = []
    for file in files:
        raw = np.fromfile(file, np.uint8)
        if raw.size == 0 or raw.size % (label_bytes + 3072):
            raise DataError(
                f"{file}: {raw.size} bytes is no multiple of {label_bytes + 3072}; re-download"
            )
        records.append(raw.reshape(-1, label_bytes + 3072))
    table = np.concatenate(records)
    images = table[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = table[:, label_bytes - 1].astype(np.int64)
    known = names_file.read_text().split() if names_file.exists() else []
    num_classes = 10 if ten else 100
    classes = known if len(known) == num_classes else [str(n) for n in range(num_classes)]
    return _in_memory(path.name, images, labels, classes)


def npz(path: Path, split: str) -> Source:
    """An npz with `images` (and `labels`), or `x_train`, `y_train`, `x_test`, `y_test`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            short = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}[split]
            known = (("images", "labels"), short) if split == "train" else (short,)
            keys = next((k for k in known if k[0] in archive), None)
            if keys is None:
                expected = " or ".join(key[0] for key in known)
                raise DataError(f"{path}: holds {archive.files}; expected {expected}")
            images = archive[keys[0]]
            labels = archive[keys[1]].reshape(-1).astype(np.int64) if keys[1] in archive else None
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as an npz without pickles ({error})") from None
    shape_is_right = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if images.dtype != np.uint8 or not shape_is_right or not len(images):
        raise DataError(
            f"{path}: {keys[0]} is {images.dtype} {images.shape};"
            " expected uint8 (N, H, W) or (N, H, W, 1 or 3), N >= 1"
        )
    if labels is not None and (len(labels) != len(images) or labels.min() < 0):
        raise DataError(f"{path}: {keys[1]} must be {len(images)} integers >= 0, one an image")
    classes = [] if labels is None else [str(n) for n in range(int(labels.max()) + 1)]
    return _in_memory(path.name, images, labels, classes)


def folder(path: Path) -> Source:
    """Image files: in class folders (labelled by the folder's name), or flat."""
    inside = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
    names = [file.as_posix() for file in inside if is_image(file)]
    files = [path / name for name in names]
    return _files(str(path), names, lambda i: decode(files[i].read_bytes()), files)


def zip_archive(path: Path, split: str) -> Source:
    """The same as `folder`, inside a zip file."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: cannot be read as a zip ({error})") from None
    members = sorted(m for m in archive.namelist() if is_image(PurePosixPath(m)))
    inside = [m for m in members if m.startswith(f"{split}/")]
    if not inside:
        source = _files(str(path), members, lambda i: decode(archive.read(members[i])))
        return _whole(source, split)
    names = [m.removeprefix(f"{split}/") for m in inside]
    return _files(str(path), names, lambda i: decode(archive.read(inside[i])))


def _files(
    where: str, names: list[str], read: Callable[[int], Pixels], files: Sequence[Path] = ()
) -> Source:
    if not names:
        raise DataError(f"{where}: no image files in it; expected {FORMATS}")
    folders = [PurePosixPath(name).parts[0] if "/" in name else "" for name in names]
    if "" in folders:  # flat, or a mixture that has no classes
        return Source(names, [], None, read, files)
    classes = sorted(set(folders))
    index = {name: n for n, name in enumerate(classes)}
    return Source(names, classes, np.array([index[f] for f in folders], np.int64), read, files)


def _whole(source: Source, split: str) -> Source:
    """A source that has no splits: all of it is "train"."""
    if split != "train":
        raise DataError(f"split {split!r}: this source has no splits; leave --split out")
    return source


def _in_memory(
    where: str, images: Pixels, labels: NDArray[np.int64] | None, classes: list[str]
) -> Source:
    return Source(
        [f"{where}[{i}]" for i in range(len(images))], classes, labels, lambda i: images[i]
    )


def _read_idx(path: Path, *, ndim: int) -> Pixels:
    """uint8 array of an IDX file: magic 00 00 08 ndim, big-endian sizes, data."""
    try:
        raw = path.read_bytes()
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    header = 4 + 4 * ndim
    if data[:4] != bytes([0, 0, 8, ndim]) or len(data) < header:
        raise DataError(
            f"{path}: no IDX file of {ndim}-dimensional uint8; found {data[:4].hex(' ')}"
        )
    shape = struct.unpack(f">{ndim}I", data[4:header])
    if len(data) - header != int(np.prod(shape)):
        raise DataError(f"{path}: {len(data) - header} bytes of data, its header says {shape}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _one(path: Path, pattern: str) -> Path:
    found = sorted(p for p in path.glob(pattern) if not re.search(r"\.(md5|sha256)$", p.name))
    if not found:
        raise DataError(
            f"{path}: no file {pattern}; found {sorted(p.name for p in path.iterdir())}"
        )
    return found[0]


def stack(source: Source, num_images: int = 128_000, *, seed: int = 0) -> Source:
    """Stacked MNIST and its kin: random grey images as the channels of a colour one.

    The classes are the triples of the source's (1000 of MNIST's ten), as in VEEGAN (1705.07761).
    """
    if source.labels is None:
        raise DataError("--stack: the source has no classes to make triples of")
    labels, num_classes = source.labels, len(source.classes)
    triples = np.random.default_rng(seed).integers(len(source.names), size=(num_images, 3))
    powers = np.array([num_classes**2, num_classes, 1])

    def read(index: int) -> Pixels:
        planes = [source.read(int(n)) for n in triples[index]]
        if any(plane.ndim != 2 for plane in planes):
            raise DataError("--stack: the source's images have colours; expected grey ones")
        return np.stack(planes, axis=-1)

    names = ["+".join(source.names[n] for n in triple) for triple in triples]
    classes = ["".join(c) for c in itertools.product(source.classes, repeat=3)]
    return Source(names, classes, labels[triples] @ powers, read)
