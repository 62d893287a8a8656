"""A connection to an HTTP server that is kept from request to request, for asyncio."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from ganinfer.errors import BackendUnavailable
from ganinfer.open_inference.over_http import checked_address

_TIMEOUT_S = 120.0  # within which a server has to answer
_EMPTY = ("204", "304")  # answers that have no body, and say no length


@dataclass(frozen=True)
class Answer:
    """headers: by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One request at a time.

    Raises:
        BackendUnavailable: nobody answers there, or not in HTTP.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        """It is opened by `async with`.

        Args:
            url: of the server, http://host:port; a path in it stands before that of each request.
            headers: of every request.

        Raises:
            RequestError: that is no address.
        """
        self._url, parts = url, checked_address(url)
        self._secure = parts.scheme == "https"
        self._place = parts.hostname, parts.port or (443 if self._secure else 80)
        self._path = parts.path.rstrip("/")
        self._headers = _lines({"Host": parts.netloc.rpartition("@")[2], **(headers or {})})

    async def __aenter__(self) -> "Connection":
        try:
            self._reader, self._writer = await asyncio.open_connection(
                *self._place, ssl=ssl.create_default_context() if self._secure else None
            )
        except OSError as error:
            raise self._silent(error) from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request, and read its answer."""
        head = (
            f"{method} {self._path}{path} HTTP/1.1\r\n{self._headers}{_lines(headers or {})}"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                self._writer.write(head.encode("latin-1") + body)
                return await self._answer()
        except (OSError, EOFError, ValueError, LookupError, asyncio.LimitOverrunError) as error:
            raise self._silent(error) from None

    async def _answer(self) -> Answer:
        """What follows is of HTTP/1.1, and says how long it is; else one of several errors."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        version, status, *_ = first.split(" ", 2)
        if version != "HTTP/1.1":
            raise ValueError(f"found {first[:40]!r}")
        size = 0 if status in _EMPTY else int(headers["content-length"])
        return Answer(int(status), headers, await self._reader.readexactly(size))

    def _silent(self, error: Exception) -> BackendUnavailable:
        return BackendUnavailable(
            f"{self._url}: no answer in HTTP ({error!r}); is the server up, and this its port?"
        )


def _lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
