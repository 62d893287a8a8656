"""Where files lie elsewhere, by fsspec: https://, s3://, gs:// and whatever else it knows.

How one logs in to a place is the business of fsspec, of its own configuration files, and of the
package that it takes for the place. Nothing that comes is executed.
"""

import re
from pathlib import Path
from typing import Any

from ganinfer.errors import GanError, MissingExtra, missing_extra

# Of two letters at least: C:/x.gan is a path. A Path makes one slash of two.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/{1,2}")
_CONNECT_S, _SILENCE_S = 30.0, 60.0
_NOTHING, _NOT_FOR_US = (404, 410), (401, 403)  # HTTP's


def split_url(text: str) -> tuple[str, str]:
    """A URL's scheme, in small letters, and what follows it; of a path, nothing and the path."""
    scheme = _SCHEME.match(text)
    return (scheme[1].lower(), text[scheme.end() :]) if scheme else ("", text)


def path_of(rest: str) -> Path:
    """The path of a file:// URL, by what follows its scheme."""
    from urllib.request import url2pathname  # slow, and few need it

    return Path(url2pathname("/" + rest.lstrip("/")))


def open_store(url: str, refusal: type[GanError]) -> tuple[Any, str]:
    """The file system of fsspec for a URL, and what the URL is called there.

    Args:
        url: with a scheme that fsspec knows.
        refusal: what to raise if it cannot be opened.

    Raises:
        refusal: there is no such scheme, or the place wants to know more, or who asks.
        MissingExtra: a package is not installed.
    """
    name = without_secrets(url)
    try:
        import fsspec
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise missing_extra("fsspec", error) from None
    scheme, _ = split_url(url)
    if scheme not in fsspec.available_protocols():
        raise refusal(
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
    except Exception as error:  # fsspec's, or of any package that it has for a place
        raise refusal(f"{name}: {in_words(error)}") from None


def _http_options() -> dict[str, Any]:
    """A download may take longer than aiohttp's five minutes; proxies and .netrc are heeded."""
    from aiohttp import ClientTimeout
    from fsspec.config import conf

    own = {**conf.get("http", {}), **conf.get("https", {})}.get("client_kwargs", {})
    return {
        "client_kwargs": {"trust_env": True, **own},
        "timeout": ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S),
    }


def in_words(error: Exception, *, writing: bool = False) -> str:
    """What went wrong at a place, and what to do.

    Args:
        error: of fsspec, or of any package that it has for a place.
        writing: a file, and not reading one.
    """
    error = _cause(error)
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    status = _status(error)
    if writing and isinstance(error, NotImplementedError):
        return "nothing can be written there; expected a store such as s3://, gs:// or az://"
    if status in _NOTHING:
        return (
            f"there is no such place ({said}); make it"
            if writing
            else ("nothing lies there; check the URL")
        )
    if status in _NOT_FOR_US:
        verb = "write" if writing else "read"
        return f"this process may not {verb} it ({status}); check the URL and who it logs in as"
    if status is not None:
        return f"the server refused ({status}); try again later"
    if _lacks_credentials(error):
        return f"nobody is logged in there ({said}); give this process credentials"
    verb = "written" if writing else "read"
    return f"cannot be {verb} ({said}); check the connection, and try again"


def is_answer(error: Exception) -> bool:
    """Does the place say that it gives no such file, or not to us?"""
    return _lacks_credentials(error) or _status(_cause(error)) in (*_NOTHING, *_NOT_FOR_US)


def is_nothing(error: Exception) -> bool:
    """Does the place say that nothing lies there?"""
    return _status(_cause(error)) in _NOTHING


def without_secrets(url: str) -> str:
    """A URL for messages: a signature in it, or a password, is nobody's business. Or a path."""
    scheme, slashes, rest = url.partition("://")
    if not slashes:
        return url
    rest, query, _ = rest.partition("?")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{'?...' if query else ''}"


def _cause(error: Exception) -> Exception:
    """What happened: fsspec says FileNotFoundError of anything over HTTP, adlfs RuntimeError."""
    match error, error.__cause__:
        case RuntimeError(), Exception() as cause:
            return cause
        case FileNotFoundError(), Exception() as cause if not hasattr(cause, "response"):
            return cause  # botocore's has one, and then it is what it says
    return error


def _status(error: Exception) -> int | None:
    """HTTP's, also of what was said in Python."""
    if isinstance(error, FileNotFoundError):
        return 404
    if isinstance(error, PermissionError):
        return 403
    # aiohttp's, gcsfs's, Azure's.
    found = (getattr(error, name, None) for name in ("status", "code", "status_code"))
    return next((status for status in found if isinstance(status, int)), None)


def _lacks_credentials(error: Exception) -> bool:
    return "Credential" in type(error).__name__  # botocore's, google.auth's
