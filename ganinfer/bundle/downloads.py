"""Bundles that came from elsewhere, kept on this host by their sha256: those that were used last.

<cache>/bundles/<sha256>.gan       a bundle in one file
<cache>/bundles/urls/<sha256>      of a URL: which content it had, at which version

No place is written to twice at once: each process writes aside and renames. A file is checked
against its name whenever it is used, so that a damaged one is as good as none.
"""

import logging
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ganinfer.bundle.tree import StoredTree
from ganinfer.errors import BundleError
from ganinfer.files import sha256_bytes, sha256_file
from ganinfer.host import kept

log = logging.getLogger(__name__)

KEPT_BUNDLES = 8
_KEPT_URLS = 64
_ABANDONED_S = 3600.0  # a download that still runs writes more often


class Seen(NamedTuple):
    """What a URL had when it was last read: the sha256, and its version as the place tells it."""

    sha256: str
    version: str


def content(sha256: str) -> Path | None:
    """The bundle of a sha256, if it is here and whole; it counts as used now."""
    file = _folder() / f"{sha256}.gan"
    try:
        found = sha256_file(file)
    except OSError:
        return None
    if found != sha256:
        log.warning("%s: damaged, and not used", file)
        return None
    with suppress(OSError):  # a cache that can only be read serves as well
        os.utime(file)
    return file


@contextmanager
def incoming(name: str) -> Iterator[Path]:
    """A file of one's own to write to; whoever does not `keep` it loses it.

    Args:
        name: of what comes, for messages.

    Raises:
        BundleError: the cache's folder cannot be written, or its disk is full.
    """
    folder = _folder()
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.touch()  # a folder that cannot be written is found out before the download
        yield part
    except OSError as error:
        raise BundleError(
            f"{name}: cannot be kept in {folder} ({error.strerror or error}); make room there and"
            " let this user write, choose another place with XDG_CACHE_HOME, or open a file"
        ) from None
    finally:
        with suppress(OSError):
            part.unlink()


def keep(part: Path, name: str, sha256: str | None = None) -> Path:
    """Keep what is written, if it is a bundle; those that were used longest ago go.

    Args:
        part: what `incoming` gave.
        name: of what came, for messages.
        sha256: that it must have; None for whatever it has.

    Returns:
        Its place; the file is named by its sha256.

    Raises:
        BundleError: it is another one, or none.
    """
    found = sha256_file(part)
    if sha256 not in (None, found):
        raise BundleError(
            f"{name}: found a file with sha256 {found}, and {sha256} was asked for; get the name of"
            " the new one from whoever put it there, or have the old one put back"
        )
    try:
        StoredTree(part).close()
    except BundleError:
        raise BundleError(
            f"{name}: no bundle in one file, or one that was damaged on the way; expected a file"
            " that gan export --single-file wrote"
        ) from None
    if (file := content(found)) is None:
        file = part.replace(part.with_name(f"{found}.gan"))
        os.utime(file)
    _forget_all_but(KEPT_BUNDLES - 1, (f for f in file.parent.glob("*.gan") if f != file))
    for left in file.parent.glob(".*.part"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                left.unlink()  # of a process that was killed
    return file


def seen(url: str) -> Seen | None:
    """What is remembered of a URL."""
    note = kept.read(_note(url))
    if note is None:
        return None
    sha256, _, version = note.decode().partition(" ")
    return Seen(sha256, version)


def remember(url: str, what: Seen) -> None:
    """Note what a URL has; the note has no URL in it, as that may hold a secret."""
    note = _note(url)
    kept.write(note, f"{what.sha256} {what.version}".encode())
    _forget_all_but(_KEPT_URLS, note.parent.glob("*"))


def _folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("ganpipe") / "bundles"


def _note(url: str) -> Path:
    return _folder() / "urls" / sha256_bytes(url.encode())


def _forget_all_but(number: int, files: Iterable[Path]) -> None:
    """Remove all but the newest. Whoever has one open reads on, where systems allow that."""
    times: list[tuple[float, Path]] = []
    for file in files:
        with suppress(OSError):  # another process is quicker
            times.append((file.stat().st_mtime, file))
    for _, file in sorted(times, reverse=True)[number:]:
        with suppress(OSError):
            file.unlink()
