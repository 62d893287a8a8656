"""Tar files: WebDataset's, where files of one name are a sample, and pictures as in a folder."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.data.names import is_litter, is_picture
from gantrain.data.sources.folder import MAX_BYTES
from gantrain.data.sources.parts import Part, blocks_of
from gantrain.data.sources.trees import Labelling, Tree, pictures_of

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BLOCK = 512  # of a tar, which ends with one of zeros
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


class Tar:
    """The places of a tar's files; a compressed one is unpacked to a temporary file.

    Attributes:
        members: name -> where its bytes begin, and how many there are.
        skipped: pictures that have none -> the reason.
    """

    def __init__(self, file: Path) -> None:
        """Read the table.

        Raises:
            DataError: it is no tar, or cut off.
        """
        self.members: dict[str, tuple[int, int]] = {}
        self.skipped: dict[str, str] = {}
        self._file, end = file, 0
        self._unpacked: IO[bytes] | None = None  # lives as long as this object
        try:
            with file.open("rb") as packed:
                opener = _OPENERS.get(packed.read(2))
            if opener is not None:
                self._unpacked = tempfile.NamedTemporaryFile(suffix=".tar")  # noqa: SIM115
                with opener(file) as packed:
                    shutil.copyfileobj(packed, self._unpacked, 1 << 20)
                self._unpacked.flush()
                self._file = Path(self._unpacked.name)
            with tarfile.open(self._file, "r:") as archive:
                for member in archive:
                    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                    name = member.name.removeprefix("./")
                    if member.isfile():
                        self.members[name] = (member.offset_data, member.size)
                    elif member.islnk() and member.linkname.removeprefix("./") in self.members:
                        self.members[name] = self.members[member.linkname.removeprefix("./")]
                    elif not member.isdir() and is_picture(name):
                        self.skipped[name] = "a link in the tar; unpack it and give the folder"
        except Exception as error:  # whatever a damaged file leads to
            raise DataError(f"{file}: cannot be read as a tar ({error})") from None
        with self._file.open("rb") as opened:
            opened.seek(end)
            if opened.read(_BLOCK) != bytes(_BLOCK):
                raise DataError(f"{file}: cannot be read as a tar: it is cut off; get it again")

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        if self.members[name][1] > MAX_BYTES:
            raise ValueError(f"a file of {self.members[name][1]:,} bytes, more than {MAX_BYTES:,}")
        return read_tar(self._file, np.array([self.members[name]], np.int64))[0]

    @property
    def is_webdataset(self) -> bool:
        """Are class numbers in files beside the pictures?"""
        return any(name.endswith(".cls") for name in self.members)


def tar_tree(file: Path, tar: Tar) -> Tree:
    """Pictures in a tar, as in a folder."""
    return Tree(str(file), list(tar.members), tar.read, skipped=tar.skipped)


def webdataset(file: Path, tar: Tar | None = None) -> Part:
    """Files of one name but for what follows its first point are one sample.

    Raises:
        DataError: it is no tar; a sample has two pictures, or no class where others have one.
    """
    tar = tar or Tar(file)
    images: dict[str, str] = {}
    labels: dict[str, int] = {}
    for name in tar.members:
        path = PurePosixPath(name)
        key = str(path.parent / path.name.partition(".")[0])
        if path.suffix == ".cls":
            try:
                labels[key] = int(tar.read(name)[:20])
            except ValueError:
                raise DataError(f"{file}: {name}: expected a class number") from None
        elif is_picture(name) and not is_litter(name):
            if key in images:
                raise DataError(f"{file}: {name}: a second image of the sample {key}; expected one")
            images[key] = name
    if labels and labels.keys() != images.keys():
        lacking = min(images.keys() ^ labels.keys())
        raise DataError(f"{file}: sample {lacking}: expected an image and a .cls, as others have")
    names = [f"{file.name}/{name}" for name in images.values()]
    told = [labels[key] for key in images] if labels else None
    members = list(images.values())
    places = np.array([tar.members[name] for name in members], np.int64).reshape(-1, 2)

    def open_one(index: int) -> bytes:
        return tar.read(members[index])

    return Part(names, told, open_one, [], places, blocks_of(places[:, 0]))


def read_tar(file: Path, places: NDArray[np.int64]) -> list[bytes]:
    """Pieces of a file: where each begins, and how many bytes it has, (n, 2)."""
    found = []
    with file.open("rb") as opened:
        for offset, size in places.tolist():
            opened.seek(offset)
            found.append(opened.read(min(size, MAX_BYTES)))
    return found


def is_shard(file: Path) -> bool:
    """Has a tar class numbers beside its pictures, or else no classes and no splits at all?"""
    return _is_shard(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _is_shard(file: Path, _mtime_ns: int) -> bool:
    try:
        tar = Tar(file)
        if tar.is_webdataset:
            return True
        found = pictures_of(tar_tree(file, tar), "train", Labelling())
    except DataError:
        return False
    pictures = [name for name in tar.members if is_picture(name) and not is_litter(name)]
    return found.labels is None and len(found.names) == len(pictures)
