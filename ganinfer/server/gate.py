"""Around everything that is served: request ids, counts by path and status, the access log."""

import asyncio
import time
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ganinfer.server.access import log_request, request_id
from ganinfer.server.answers import CLIENT_GONE, error_answer
from ganinfer.server.counts import Counts
from ganinfer.server.traces import TRACE_HEADERS, continued, trace_of

_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})  # others are counted as one


class Gate:
    """The outermost part of the application; what is inside tells its errors itself."""

    def __init__(
        self, inner: ASGIApp, counts: Counts, paths: Mapping[object, str], *, log_requests: bool
    ) -> None:
        """paths: of the routes, by their endpoints."""
        self._inner, self._counts, self._paths = inner, counts, paths
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        headers = Headers(scope=scope)
        identity = request_id(headers.get("x-request-id", ""))
        trace = trace_of(*map(headers.getlist, TRACE_HEADERS))
        scope["state"] = {**scope.get("state", {}), "request_id": identity}
        begun, status, sent = time.monotonic(), CLIENT_GONE, 0

        async def tell(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = identity
            else:
                sent += len(message.get("body", b""))
            if status != CLIENT_GONE:
                await send(message)

        try:
            with continued(trace):
                await self._inner(scope, receive, tell)
        except asyncio.CancelledError:  # the host has waited long enough for this request
            if status == CLIENT_GONE:
                await error_answer(scope["path"], 503, "this server stops")(scope, receive, tell)
        except Exception:
            if status == CLIENT_GONE:
                raise  # else it is told and logged
        finally:
            method, path = scope["method"], self._paths.get(scope.get("endpoint"), "other")
            self._counts.add(method if method in _METHODS else "other", path, status)
            if self._log_requests:
                log_request(
                    identity,
                    trace,
                    client=(scope.get("client") or ("", 0))[0],
                    method=method,
                    path=scope["path"],
                    status=status,
                    seconds=time.monotonic() - begun,
                    sent=sent,
                )
