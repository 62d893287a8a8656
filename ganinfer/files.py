"""Files that are either whole or absent."""

import hashlib
import io
import os
import uuid
from pathlib import Path

import numpy as np


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file aside, flush it to the disk, then rename it into place.

    A reader, or a process killed half-way, sees the old file or the new one, never a part.

    Args:
        path: where the file shall be; its folder must exist.
        data: the whole content.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The header of an .npy file of uint8 in C order; its length does not depend on shape[0]."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hexadecimal sha256 of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file, read in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
