"""Bundles that lie elsewhere, by fsspec: https://, s3://, gs:// and whatever else it knows.

How one logs in to a place is the business of fsspec, of its own configuration files, and of the
package that it takes for the place. Nothing that comes is executed.
"""

import errno
import logging
from pathlib import Path
from typing import Any

from ganinfer.bundle.downloads import Seen, content, incoming, keep, remember, seen
from ganinfer.errors import BundleError, MissingExtra, missing_extra
from ganinfer.progress import Progress

log = logging.getLogger(__name__)

# What places call that which changes with a file; a size alone says too little.
_VERSIONS = (
    *("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "updated"),
    *("generation", "VersionId", "version_id", "Content-MD5", "md5Hash", "sha", "created"),
)
_CONNECT_S, _SILENCE_S = 30.0, 60.0
_NOTHING, _NOT_FOR_US = (404, 410), (401, 403)  # HTTP's
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
    name = _without_secrets(url)
    last = None if sha256 else seen(url)
    wanted = sha256 or (last and last.sha256)
    here = content(wanted) if wanted else None
    if sha256 and here:
        return here
    files, place = _open_place(url, name)
    try:
        info = files.info(place)
    except Exception as error:  # fsspec's, or of any package that it has for a place
        refusal = BundleError(f"{name}: {_in_words(error)}")
        if here is None or _is_answer(error):
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


def _open_place(url: str, name: str) -> tuple[Any, str]:
    """The file system of fsspec for a URL, and what the URL is called there."""
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise missing_extra("fsspec", error) from None
    scheme = url.partition(":")[0]
    if scheme not in fsspec.available_protocols():
        raise BundleError(
            f"{name}: there is no {scheme}://; expected a path, hf://, file://, https://, s3://,"
            " gs://, az://, or another that fsspec.available_protocols() names"
        )
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        cause = error.__cause__
        lacking = cause.name if isinstance(cause, ModuleNotFoundError) and cause.name else ""
        if lacking == "aiohttp":
            raise missing_extra(lacking) from None
        command = f"; run: pip install {lacking}" if lacking else ""
        raise MissingExtra(
            f"{name}: {scheme}:// needs another package ({error}){command}"
        ) from None
    options = _http_options() if scheme in ("http", "https") else {}
    try:
        return url_to_fs(url, skip_instance_cache=True, **options)  # type: ignore[no-any-return]
    except Exception as error:  # as above: a place may want to know more, or who asks
        raise BundleError(f"{name}: {_in_words(error)}") from None


def _version(info: dict[str, Any]) -> str:
    """What a place tells that changes with the file; nothing, if it tells no more than a size."""
    told = [f"{key} {info[key]}" for key in _VERSIONS if info.get(key)]
    return ", ".join([*told, f"size {info.get('size')}"]) if told else ""


def _http_options() -> dict[str, Any]:
    """A download may take longer than aiohttp's five minutes; proxies and .netrc are heeded."""
    from aiohttp import ClientTimeout
    from fsspec.config import conf

    own = {**conf.get("http", {}), **conf.get("https", {})}.get("client_kwargs", {})
    return {
        "client_kwargs": {"trust_env": True, **own},
        "timeout": ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S),
    }


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
        raise BundleError(f"{name}: {_in_words(error)}") from None


def _in_words(error: Exception) -> str:
    error = _cause(error)
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    status = _status(error)
    if status in _NOTHING:
        return "nothing lies there; check the URL"
    if status in _NOT_FOR_US:
        return f"this process may not read it ({status}); check the URL and who it logs in as"
    if status is not None:
        return f"the server refused ({status}); try again later"
    if _lacks_credentials(error):
        return f"nobody is logged in there ({said}); give this process credentials"
    return f"cannot be read ({said}); check the connection, and try again"


def _cause(error: Exception) -> Exception:
    """What happened: over HTTP fsspec says FileNotFoundError, whatever it is."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    return error if hasattr(cause, "response") else cause  # botocore's has one, and is what it says


def _status(error: Exception) -> int | None:
    """HTTP's, also of what was said in Python."""
    if isinstance(error, FileNotFoundError):
        return 404
    if isinstance(error, PermissionError):
        return 403
    found = getattr(error, "status", None) or getattr(error, "code", None)  # aiohttp's, gcsfs's
    return found if isinstance(found, int) else None


def _is_answer(error: Exception) -> bool:
    """Does the place say that it gives no such file, or not to us?"""
    return _lacks_credentials(error) or _status(_cause(error)) in (*_NOTHING, *_NOT_FOR_US)


def _lacks_credentials(error: Exception) -> bool:
    return "Credential" in type(error).__name__  # botocore's, google.auth's


def _without_secrets(url: str) -> str:
    """A URL for messages: a signature in it, or a password, is nobody's business."""
    scheme, _, rest = url.partition("://")
    rest, query, _ = rest.partition("?")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{'?...' if query else ''}"
