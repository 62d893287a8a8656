"""Bodies of requests: read, inflated and checked, never beyond a bound."""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ganinfer.server.answers import malformed, too_large
from ganinfer.server.serving import Serving


class Body(BaseModel):
    """A JSON body: nothing is converted; what is not known to us is left to other servers."""

    model_config = ConfigDict(strict=True, frozen=True)


Kind = TypeVar("Kind", bound=Body)


async def read_body(request: Request, serving: Serving) -> bytes:
    """The whole body, inflated.

    Raises:
        HTTPException: 413 too large, 408 it does not come, 415 another encoding, 400 damaged.
    """
    limit = serving.max_body_bytes
    parts, size = [], 0
    try:
        async with asyncio.timeout(serving.timeout_s):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _beyond(limit)
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"the body was not there in {serving.timeout_s:g} s") from None
    body = b"".join(parts)
    encoding = request.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise HTTPException(415, f"Content-Encoding {encoding}: expected gzip or deflate")
    return await asyncio.to_thread(inflated, body, limit)


def inflated(body: bytes, limit: int) -> bytes:
    """A gzip or deflate body, of at most `limit` bytes.

    Raises:
        HTTPException: 413 it is larger; 400 it is damaged.
    """
    unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS)  # either header
    try:
        found = unpacker.decompress(body, limit + 1)
    except zlib.error:
        raise malformed("body: not what its Content-Encoding says") from None
    if len(found) > limit:
        raise _beyond(limit)
    if not unpacker.eof or unpacker.unused_data:
        raise malformed("body: its compressed stream ends too early or too late")
    return found


def read_json(kind: type[Kind], text: bytes) -> Kind:
    """A JSON body of a kind.

    Raises:
        HTTPException: 400, and what is wrong first.
    """
    with refusing():
        return kind.model_validate_json(text)


@contextmanager
def refusing() -> Iterator[None]:
    """Around what makes a `Body`: 400, and what is wrong first, where it is malformed."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise malformed(f"{where}: {first['msg'][:200]}") from None


def _beyond(limit: int) -> HTTPException:
    return too_large(f"body: at most {limit} bytes")
