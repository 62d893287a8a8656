"""Around every call: request ids, keys, errors, counts, the access log."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError
from starlette.exceptions import HTTPException

from ganinfer.errors import grpc_status
from ganinfer.server.access import log_request, request_id
from ganinfer.server.answers import malformed, told
from ganinfer.server.inference import aside
from ganinfer.server.keys import NO_KEY, shows_key
from ganinfer.server.service import Service
from ganinfer.server.tensors import LARGE
from ganinfer.server.traces import TRACE_HEADERS, continued, trace_of

# Of what is refused without an error of the tree. What is too large stays so, however often it is
# asked for: it is no RESOURCE_EXHAUSTED, which clients repeat.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    503: "UNAVAILABLE",
}


class Call:
    """A call as it goes on.

    Attributes:
        identity: its request id. trace: that it belongs to.
        sent: bytes of its answers.
    """

    def __init__(self, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        self._context = context
        # Others are no headers of HTTP.
        sent = [
            (name, value)
            for name, value in context.invocation_metadata() or ()
            if isinstance(value, str) and value.isascii()
        ]
        self.headers = dict(sent)
        self.identity = request_id(self.headers.get("x-request-id", ""))
        self.trace = trace_of(
            *([value for name, value in sent if name == wanted] for wanted in TRACE_HEADERS)
        )
        self.sent = 0

    @property
    def left_s(self) -> float:
        """Until the client's deadline; infinite if it has none."""
        left: float | None = self._context.time_remaining()
        return float("inf") if left is None else left

    def packed(self, message: Any) -> bytes:
        """A message to be sent."""
        data: bytes = message.SerializeToString()
        self.sent += len(data)
        return data

    async def send(self, message: Any) -> None:
        """One of several answers."""
        await self._context.write(self.packed(message))


class Door:
    """Makes handlers of what answers messages by messages, and raises `GanError`s."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def one(
        self, path: str, kind: Any, answer: Callable[[Any, Call], Awaitable[Any]], *, guarded: bool
    ) -> grpc.RpcMethodHandler:
        """Of a method with one answer.

        Args:
            path: the method's, /package.Service/Method.
            kind: the class of its messages.
            answer: gives the answer.
            guarded: whether a key is needed, if there are keys.
        """

        async def handle(data: bytes, context: Any) -> bytes:
            async with self._passing(path, context, guarded=guarded) as call:
                asked = await aside(len(data) <= LARGE, parsed, kind, data)
                answered = await answer(asked, call)
                reply = await aside(answered.ByteSize() <= LARGE, call.packed, answered)
            return reply  # noqa: RET504 - a type checker asks for it behind the block

        return grpc.unary_unary_rpc_method_handler(handle)

    def many(
        self, path: str, kind: Any, answer: Callable[[Any, Call], Awaitable[None]], *, guarded: bool
    ) -> grpc.RpcMethodHandler:
        """Of a method with several answers, which `answer` sends; arguments as of `one`."""

        async def handle(data: bytes, context: Any) -> None:
            async with self._passing(path, context, guarded=guarded) as call:
                await answer(parsed(kind, data), call)

        return grpc.unary_stream_rpc_method_handler(handle)

    def stream(
        self, path: str, answer: Callable[[AsyncIterator[bytes], Call], Awaitable[None]]
    ) -> grpc.RpcMethodHandler:
        """Of a method with several requests, which come as bytes, and several answers."""

        async def handle(asked: AsyncIterator[bytes], context: Any) -> None:
            async with self._passing(path, context, guarded=True) as call:
                await answer(asked, call)

        return grpc.stream_stream_rpc_method_handler(handle)

    @asynccontextmanager
    async def _passing(self, path: str, context: Any, *, guarded: bool) -> AsyncIterator[Call]:
        begun, status, call = time.monotonic(), "OK", Call(context)
        context.set_trailing_metadata((("x-request-id", call.identity),))
        keys = self._service.keys
        try:
            if guarded and keys is not None and not shows_key(call.headers, keys):
                raise HTTPException(401, NO_KEY)
            with continued(call.trace):
                yield call
        except asyncio.CancelledError:
            status = "DEADLINE_EXCEEDED" if call.left_s <= 0 else "CANCELLED"
            raise
        except Exception as error:
            status = _status_of(error)
            await context.abort(grpc.StatusCode[status], told(error, call.identity))
        finally:
            self._service.grpc_counts.add(path.rpartition("/")[2], status)
            if self._service.serving.access_log:
                log_request(
                    call.identity,
                    call.trace,
                    client=_host_of(context.peer()),
                    method="POST",
                    path=path,
                    status=status,
                    seconds=time.monotonic() - begun,
                    sent=call.sent,
                )


def parsed(kind: Any, data: bytes) -> Any:
    """A message of a class.

    Raises:
        HTTPException: 400, these are not its bytes.
    """
    try:
        return kind.FromString(data)
    except DecodeError:
        raise malformed(f"expected a message {kind.DESCRIPTOR.full_name}") from None


def _host_of(peer: str) -> str:
    """Of ipv4:127.0.0.1:1234 or ipv6:%5B::1%5D:1234."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


def _status_of(error: Exception) -> str:
    if isinstance(error, HTTPException):
        return _CODES[error.status_code]
    return grpc_status(error)
