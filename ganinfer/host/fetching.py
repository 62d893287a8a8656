"""Public files that somebody asked for: downloaded or copied, checked by sha256, kept whole."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

from ganinfer.errors import DataError, DataNotFound
from ganinfer.files import sha256_file

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0


def fetch_file(
    target: Path,
    origin: str | Path,
    sha256: str,
    *,
    remedy: str,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Bring a file to its place, if it is not there.

    Args:
        target: its place.
        origin: a URL, or the path of a copy.
        sha256: what it must have.
        remedy: the command that takes a copy brought by hand.
        progress: called with (bytes done, bytes in all).

    Returns:
        target.

    Raises:
        DataError: it cannot be read, downloaded or kept, or is another; nothing is left behind.
    """
    if target.exists() and sha256_file(target) == sha256:
        return target
    chunks = _read(origin) if isinstance(origin, Path) else _download(origin, remedy)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _keep(chunks, target, sha256, origin=str(origin), remedy=remedy, progress=progress)
    except DataNotFound:  # an OSError, too
        raise
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error})") from None
    return target


def _keep(
    chunks: Generator[tuple[bytes, int], None, None],
    target: Path,
    sha256: str,
    *,
    origin: str,
    remedy: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write aside what comes, then rename it into place if it is what it should be."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    digest = hashlib.sha256()
    try:
        with closing(chunks), temporary.open("xb") as file:
            for chunk, total in chunks:
                digest.update(chunk)
                file.write(chunk)
                if progress:
                    progress(file.tell(), max(total, file.tell()))
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise DataError(
                f"{origin}: sha256 {digest.hexdigest()}, expected {sha256}; this is another file,"
                f" or a damaged one; with the right one at hand: {remedy}"
            )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _read(source: Path) -> Generator[tuple[bytes, int], None, None]:
    """Parts of a file, each with the length of the whole."""
    try:
        with source.open("rb") as file:
            total = os.fstat(file.fileno()).st_size
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk, total
    except FileNotFoundError:
        raise DataNotFound(f"{source}: no such file; expected a copy of the weights") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error}); expected a file") from None


def _download(url: str, remedy: str) -> Generator[tuple[bytes, int], None, None]:
    """Parts of what a server sends, each with the length of the whole, 0 if it does not say."""
    done = total = 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            total = int(response.headers.get("Content-Length", 0))
            while chunk := response.read(_CHUNK_BYTES):
                done += len(chunk)
                yield chunk, total
        if done < total:
            raise http.client.IncompleteRead(b"", total - done)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise DataError(
            f"{url}: cannot be downloaded ({error}); try again, or bring the file by hand: {remedy}"
        ) from None
