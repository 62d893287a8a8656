"""What clients and caches may keep of a picture, and for how long.

A URL that pins its bundle (&bundle=<the first digits of its sha256>) gives the same bytes for ever,
and is cached so; others are asked for again by their ETag, and not drawn if it is the same.
"""

import functools
import json
import re
import zlib
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from typing import Any

import PIL
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ganinfer.sampler import Sampler
from ganinfer.server.answers import malformed
from ganinfer.server.service import service_of

MIN_PIN = 12  # digits of a sha256, as `bundle` in /metrics has them

_version = functools.cache(version)


def kept(
    request: Request, sampler: Sampler, bundle: str, pin: str | None, picture: Mapping[str, Any]
) -> dict[str, str]:
    """The headers of a picture: its ETag, and how long it may be kept.

    Args:
        request: that is answered.
        sampler: that draws it.
        bundle: the sha256 of its bundle.
        pin: that the URL names; None if it takes what there is.
        picture: all that its pixels and bytes depend on, as JSON has it; its "format" too.

    Raises:
        HTTPException: 400, the pin is none; 404, another bundle serves.
    """
    pinned = _check_pin(pin, bundle)
    whose = "private" if service_of(request).serving.api_keys else "public"
    return {
        "ETag": _etag(sampler, bundle, picture),
        "Cache-Control": f"{whose}, max-age=31536000, immutable" if pinned else "no-cache",
    }


def is_known(request: Request, headers: Mapping[str, str]) -> bool:
    """Whether the client has this very picture; If-None-Match compares weakly."""
    asked = request.headers.get("if-none-match", "").split(",")
    tags = [tag.strip().removeprefix("W/") for tag in asked]
    return headers["ETag"] in tags or "*" in tags


def _check_pin(pin: str | None, bundle: str) -> bool:
    """Whether the URL says which bundle; 404 if it is another one."""
    if pin is None:
        return False
    if not re.fullmatch(rf"[0-9a-f]{{{MIN_PIN},64}}", pin):
        raise malformed(f"bundle: found {pin!r:.80}; expected {MIN_PIN} to 64 digits of its sha256")
    if not bundle.startswith(pin):
        raise HTTPException(404, f"bundle {pin}: another one serves, {bundle[:MIN_PIN]}")
    return True


def _etag(sampler: Sampler, bundle: str, picture: Mapping[str, Any]) -> str:
    """Names the bytes: of the pixels, and of the programs that pack them."""
    info = sampler.info
    parts: list[Any] = [bundle, info["backend"], info["device"], info["precision"], dict(picture)]
    parts += [PIL.__version__, zlib.ZLIB_RUNTIME_VERSION]
    if picture["format"] == "mp4":
        parts.append(_version("av"))
    return f'"{sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]}"'
