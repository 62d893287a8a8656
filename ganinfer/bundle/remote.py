"""Bundles that lie elsewhere, downloaded by fsspec."""

import errno
import logging
from pathlib import Path
from typing import Any

from ganinfer.bundle.downloads import Seen, content, incoming, keep, remember, seen
from ganinfer.errors import BundleError, BundleNotFound
from ganinfer.progress import Progress
from ganinfer.stores import in_words, is_answer, is_nothing, open_store, without_secrets

log = logging.getLogger(__name__)

# What places call that which changes with a file; a size alone says too little.
_VERSIONS = (
    *("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "updated"),
    *("generation", "VersionId", "version_id", "Content-MD5", "md5Hash", "sha", "created"),
)
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fetched(url: str, sha256: str | None = None, *, progress: Progress | None = None) -> Path:
    """A bundle that lies elsewhere, downloaded unless this very content is here.

    A place that tells a version (an ETag, a time) is asked whether there is a new one; one that
    tells none is read each time. If it cannot be reached, what it had the last time is used, and
    the log warns of it.

    Args:
        url: of one file, with a scheme that fsspec knows.
        sha256: that the file must have; if it is here, nobody is asked.
        progress: called with (what is being done, bytes done, bytes in all).

    Returns:
        Where it is kept; the file is named by its sha256.

    Raises:
        BundleError: it cannot be had, cannot be kept, or is no bundle in one file.
        MissingExtra: a package is not installed.
    """
    name = without_secrets(url)
    last = None if sha256 else seen(url)
    wanted = sha256 or (last and last.sha256)
    here = content(wanted) if wanted else None
    if sha256 and here:
        return here
    files, place = open_store(url, BundleError)
    try:
        info = files.info(place)
    except Exception as error:  # fsspec's, or of any package that it has for a place
        kind = BundleNotFound if is_nothing(error) else BundleError
        refusal = kind(f"{name}: {in_words(error)}")
        if here is None or is_answer(error):
            raise refusal from None
        log.warning("%s; what it had the last time is used, sha256 %s", refusal, here.stem)
        return here
    if info.get("type") == "directory":
        raise BundleError(
            f"{name}: is a folder; expected one file, as gan export --single-file writes it"
        )
    version = _version(info)
    if last and here and version and version == last.version:
        return here
    with incoming(name) as part:
        _download(files, place, part, name, progress)
        file = keep(part, name, sha256)
    remember(url, Seen(file.stem, version))
    return file


def _version(info: dict[str, Any]) -> str:
    """What a place tells that changes with the file; nothing, if it tells no more than a size."""
    told = [f"{key} {info[key]}" for key in _VERSIONS if info.get(key)]
    return ", ".join([*told, f"size {info.get('size')}"]) if told else ""


def _download(files: Any, place: str, part: Path, name: str, progress: Progress | None) -> None:
    from fsspec.callbacks import Callback

    def show(size: int | None, value: int, **_: Any) -> None:
        if progress and value:
            progress("downloading", value, max(size or 0, value))

    try:
        files.get_file(place, str(part), callback=Callback(hooks={"show": show}))
    except Exception as error:  # as above
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            raise  # `incoming` says it
        raise BundleError(f"{name}: {in_words(error)}") from None
