"""Where bundles lie: the one door for paths, URLs, the Hub, bytes and open files."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ganinfer.errors import BundleError, RequestError
from ganinfer.progress import Progress
from ganinfer.stores import path_of, split_url

_PIN = "#sha256="
_CHUNK_BYTES = 1 << 20


class Readable(Protocol):
    """A file that was opened in binary mode."""

    def read(self, size: int = ..., /) -> bytes: ...


Place = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable


def local_path(name: Place, *, progress: Progress | None = None) -> Path:
    """Where a bundle lies on this host; see `located`."""
    return located(name, progress=progress)[1]


def located(name: Place, *, progress: Progress | None = None) -> tuple[str, Path]:
    """A bundle's name for any other process, and where it lies on this host.

    Args:
        name: a path; hf://owner/name[@revision], of a branch, tag or commit; file://,
            https://, s3://, gs:// or another URL that fsspec knows, of a bundle in one file,
            which may end in #sha256=<64 hexadecimal digits> of that file; or the content of such a
            file, as bytes or as a file opened in binary mode, which is read to its end.
        progress: of a download by URL, called with (what is being done, bytes done, bytes in all).

    Returns:
        Of a path, that from the root, and the path as it is. Of hf://, that of the commit, and,
        once it is downloaded, the file in huggingface_hub's cache, which is brought up to date if
        the Hub can be reached. Of a URL, the same with the sha256 of what it has now, and the file
        in our own cache; see `ganinfer.bundle.remote.fetched`. Of a content, its place in that
        cache, twice. Whoever opens it checks it, as any bundle.

    Raises:
        BundleError: it cannot be had, or cannot be kept.
        RequestError: none of these, an empty content, or a file opened as text.
        MissingExtra: a package for this kind of place is not installed.
    """
    if not isinstance(name, str | os.PathLike):
        file = _stored(name)
        return str(file), file
    text = os.fsdecode(name)
    scheme, rest = ("", text) if os.path.exists(text) else split_url(text)  # noqa: PTH110 - as in Bundle
    match scheme:
        case "":
            return os.path.abspath(text), Path(text)  # noqa: PTH100 - links are kept
        case "file":
            place = path_of(rest)
            return os.path.abspath(place), place  # noqa: PTH100
        case "hf":
            from ganinfer.bundle import hub

            return hub.fetched(rest)
        case other:
            from ganinfer.bundle import remote

            url, pinned, sha256 = f"{other}://{rest}".partition(_PIN)
            if pinned and not re.fullmatch(r"[0-9a-f]{64}", sha256):
                raise BundleError(f"{text}: expected 64 digits of 0-9a-f after {_PIN}")
            file = remote.fetched(url, sha256 or None, progress=progress)
            return f"{url}{_PIN}{file.stem}", file


def _stored(source: Any) -> Path:
    """A content that was given, kept as downloads are."""
    from ganinfer.bundle.downloads import incoming, keep

    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        source, name = io.BytesIO(data), f"{len(data)} bytes"
    elif hasattr(source, "read"):
        name = repr(source)
    else:
        raise RequestError(
            f"path {source!r}: expected a bundle: a path, a URL, bytes, or a file in binary mode"
        )
    chunks = _chunks(source, name)
    first = next(chunks, None)
    if first is None:
        raise RequestError(f"{name}: nothing to read; expected a bundle. If it was read: seek(0)")
    with incoming(name) as part:
        with part.open("wb") as file:
            file.write(first)
            file.writelines(chunks)
        return keep(part, name)


def _chunks(source: Any, name: str) -> Iterator[bytes]:
    """What a file holds from where it stands."""
    while True:
        try:
            chunk = source.read(_CHUNK_BYTES)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise RequestError(f"{name}: cannot be read ({error})") from None
        if not isinstance(chunk, bytes | bytearray | memoryview):
            raise RequestError(
                f"{name}: read() gives {type(chunk).__name__}; open the file in binary mode, 'rb'"
            )
        if not chunk:
            return
        yield bytes(chunk)
