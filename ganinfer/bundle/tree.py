"""How a tree of files is stored: as a folder, or in one uncompressed zip file.

The zip's comment is the sha256 of all before it. A tree is written aside and then moved into place.
"""

import ctypes
import glob
import hashlib
import logging
import os
import re
import shutil
import stat
import time
import uuid
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ganinfer.bundle.foreign import foreign_kind
from ganinfer.errors import BundleError
from ganinfer.files import write_atomic

log = logging.getLogger(__name__)

# What systems put into any folder; names that begin with a dot are no bundle's, either.
_LITTER = {"@eaDir", "desktop.ini", "lost+found", "Thumbs.db", "__MACOSX"}
_ABANDONED_S = 3600.0  # no bundle is that long in the writing
_SAFE_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_DIGEST_PREFIX = b"sha256:"
_COMMENT_BYTES = len(_DIGEST_PREFIX) + 64


class StoredTree:
    """The files that lie in a folder or in a zip file, opened for reading."""

    def __init__(self, path: Path) -> None:
        """Open it; of a zip file its closing sha256 is checked.

        Raises:
            BundleError: the file is damaged, of another kind, or cannot be read.
        """
        self._path = path
        self._zip = None if path.is_dir() else _open_zip(path)

    def sizes(self) -> dict[str, int]:
        """Name -> size of every file; links that lead out, odd names, special files are refused."""
        found = _list_folder(self._path) if self._zip is None else _list_zip(self._zip, self._path)
        for name in found:
            if not _SAFE_PATH.fullmatch(name):
                raise BundleError(
                    f"{self._path}: file name {name!r}; expected a relative, plain path."
                    " Do not open this bundle; get it anew from whoever made it"
                )
        return found

    def read(self, name: str, size: int) -> bytes:
        """The first bytes of a file: `size`, and one more if it is longer."""
        if self._zip is None:
            with (self._path / name).open("rb") as file:
                return file.read(size + 1)
        try:
            with self._zip.open(name) as member:
                return member.read(size + 1)
        except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError) as error:
            raise BundleError(f"{self._path}: {name}: {error}; copy the bundle again") from None

    def close(self) -> None:
        """Close the zip file."""
        if self._zip is not None:
            self._zip.close()


def write_tree(path: Path, tree: Mapping[str, bytes], *, single_file: bool) -> None:
    """Write files aside, then move them into place; what is there is replaced.

    Killed at any point, the old tree or the new one is at `path`, never half of one; where folders
    cannot be swapped (not on Linux), for an instant neither, the old one beside it as `.old-*`.

    Args:
        path: where the tree shall be.
        tree: relative path -> content, in the order of writing.
        single_file: write one uncompressed zip file instead of a folder.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind.
    """
    path = path.resolve()  # a link to a bundle stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 32}"):
        with suppress(FileNotFoundError):  # another writer is quicker
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                _remove(left)  # by a writer that was killed
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        (_write_zip if single_file else _write_folder)(temporary, tree)
        _move_into_place(temporary, path)
    finally:
        _remove(temporary)


def _list_folder(path: Path) -> dict[str, int]:
    """Name -> size of every file, also by way of links that stay inside.

    Kubernetes makes each file of a volume a link into a folder `..data` beside it, and the Hub's
    cache makes links from `snapshots/<commit>` to `blobs`.
    """
    home = path.resolve()
    inside = [home]
    inside += [up.parent / "blobs" for up in home.parents[:3] if up.name == "snapshots"]
    found: dict[str, int] = {}

    def look(folder: Path, prefix: str, above: tuple[Path, ...]) -> None:
        for entry in sorted(folder.iterdir()):
            name = prefix + entry.name
            if entry.name in _LITTER or entry.name.startswith("."):
                log.debug("%s: %s is none of a bundle's; ignored", path, name)
                continue
            place = entry.resolve() if entry.is_symlink() else entry
            if not any(place.is_relative_to(root) for root in (folder, *inside)):
                raise BundleError(
                    f"{path}: {name} is a link that leads out of the folder, to {place}; copy the"
                    " bundle with what its links point to (cp -rL), or use one file"
                    " (gan export --single-file)"
                )
            status = place.stat()
            if stat.S_ISREG(status.st_mode):
                found[name] = status.st_size
            elif not stat.S_ISDIR(status.st_mode) or place in above:
                raise BundleError(f"{path}: {name} is a special file, or a link to a folder above")
            else:
                look(place, f"{name}/", (*above, place))

    look(home, "", (home,))
    return found


def _open_zip(path: Path) -> zipfile.ZipFile:
    """Open a single-file bundle once its comment, the sha256 of all before it, is right."""
    advice = "the file was changed or damaged on the way, or is no bundle. Copy it again"
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _COMMENT_BYTES))
            comment = file.read()
            expected = _closing_comment(file, size - _COMMENT_BYTES)
        if comment != expected:
            if known := foreign_kind(path):
                raise BundleError(f"{path}: no bundle, but {known}")
            raise BundleError(f"{path}: its closing sha256 does not match; {advice}")
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BundleError(f"{path}: {error}; {advice}") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error})") from None


def _list_zip(archive: zipfile.ZipFile, path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for member in archive.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise BundleError(
                f"{path}: {member.filename} is compressed or encrypted; it must be stored"
            )
        if kind not in (0, stat.S_IFREG) or member.filename in found:
            raise BundleError(f"{path}: {member.filename} is a link, special or there twice")
        found[member.filename] = member.file_size
    return found


def _write_folder(folder: Path, tree: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, data)


def _write_zip(path: Path, tree: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as archive:
        for name, data in tree.items():
            # A fixed date: the same bundle is the same file.
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, data)
        archive.comment = b"." * _COMMENT_BYTES
    with path.open("r+b") as file:
        length = file.seek(-_COMMENT_BYTES, os.SEEK_END)
        comment = _closing_comment(file, length)
        file.seek(length)
        file.write(comment)
        file.flush()
        os.fsync(file.fileno())


def _closing_comment(file: BinaryIO, length: int) -> bytes:
    """The sha256 of the file's first `length` bytes, as the comment that ends a bundle."""
    digest = hashlib.sha256()
    file.seek(0)
    while length > 0 and (chunk := file.read(min(length, 1 << 20))):
        digest.update(chunk)
        length -= len(chunk)
    return _DIGEST_PREFIX + digest.hexdigest().encode()


def _move_into_place(new: Path, path: Path) -> None:
    if not path.exists() or not (new.is_dir() or path.is_dir()):
        new.replace(path)
        return
    # A folder cannot be renamed over another one. Linux can swap the two in one step.
    try:
        at_fdcwd, exchange = -100, 2
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.renameat2(at_fdcwd, bytes(new), at_fdcwd, bytes(path), exchange)
    except (OSError, AttributeError, TypeError):  # another system, or an old kernel
        failed = True
    if failed:
        old = path.with_name(f".{path.name}.old-{uuid.uuid4().hex}")
        path.rename(old)
        new.rename(path)
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
