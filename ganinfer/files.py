"""Files that are either whole or absent."""

import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ganinfer.errors import GanError, RequestError

_PART = ".part"  # ends the names of files that are being written


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file aside, flush it to the disk, then rename it into place.

    A reader, or a process killed half-way, sees the old file or the new one, never a part.

    Args:
        path: where the file shall be; its folder must exist.
        data: the whole content.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    with _aside(path) as file:
        file.write(data)


@contextmanager
def _aside(path: Path) -> Iterator[BinaryIO]:
    """A file to write; if that went well it is flushed and takes its place, else it is gone.

    Its name is nobody else's, on this host or on another that has the same disk.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PART}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            error.filename = str(path)  # of a full disk the system names none
        raise


def check_place(path: Path, suffix: str = "") -> None:
    """Before long work: can its result be written there? Its folder is made, if it is not there.

    Raises:
        RequestError: the name ends in something else, or no file can be written there.
    """
    if not path.name.lower().endswith(suffix):
        raise RequestError(f"{path}: expected a name that ends in {suffix}")
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PART}")
    try:
        if path.is_dir():
            raise RequestError(f"{path}: is a folder; expected the name of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise RequestError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from None


class Sink:
    """A file being written from front to back: its size and its sha256 are known at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    @property
    def sha256(self) -> str:
        """Hexadecimal, of what was written so far."""
        return self._digest.hexdigest()


@contextmanager
def stream_atomic(path: Path) -> Iterator[Sink]:
    """As `write_atomic`, piece by piece."""
    with _aside(path) as file:
        yield Sink(file)


def leftovers(folder: Path) -> list[Path]:
    """What is written in a folder just now, or was when its process was killed."""
    return list(folder.glob(f".*{_PART}"))


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder for one process; the system lets go when the process ends, however it ends.

    Where the system has no such locks (Windows), nothing is held.

    Raises:
        GanError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise GanError(
                f"{folder}: another process is writing there; wait for it, or choose another folder"
            ) from None
        yield


def npy_header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    """The header of an .npy file in C order; its length does not depend on shape[0]."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hexadecimal sha256 of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
