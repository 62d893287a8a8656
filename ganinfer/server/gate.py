"""Around everything that is served: request ids, counts by path and status, the access log."""

import asyncio
import json
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ganinfer.server.answers import CLIENT_GONE, error_answer

access = logging.getLogger("ganinfer.server.access")

_SANE_ID = re.compile(r"[\x21-\x7e]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})  # others are counted as one


class Gate:
    """The outermost part of the application; what is inside tells its errors itself.

    Attributes:
        counts: requests by (method, path as the routes have it, status).
    """

    def __init__(self, inner: ASGIApp, paths: Mapping[object, str], *, log_requests: bool) -> None:
        """paths: of the routes, by their endpoints."""
        self.counts: Counter[tuple[str, str, int]] = Counter()
        self._inner, self._paths, self._log_requests = inner, paths, log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        shown = Headers(scope=scope).get("x-request-id", "")
        identity = shown if _SANE_ID.fullmatch(shown) else uuid.uuid4().hex
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
            await self._inner(scope, receive, tell)
        except asyncio.CancelledError:  # the host has waited long enough for this request
            if status == CLIENT_GONE:
                await error_answer(scope["path"], 503, "this server stops")(scope, receive, tell)
        except Exception:
            if status == CLIENT_GONE:
                raise  # else it is told and logged
        finally:
            route = self._paths.get(scope.get("endpoint"), "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self.counts[method, route, status] += 1
            if self._log_requests:
                access.info(
                    json.dumps(
                        {
                            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                            "id": identity,
                            "client": (scope.get("client") or ("",))[0],
                            "method": scope["method"],
                            "path": scope["path"],
                            "status": status,
                            "ms": round(1000 * (time.monotonic() - begun), 3),
                            "bytes": sent,
                        }
                    )
                )

    def prometheus(self) -> str:
        """The counts in Prometheus' text format."""
        name = "ganinfer_http_requests_total"
        lines = [f"# HELP {name} Requests over HTTP.", f"# TYPE {name} counter"]
        for (method, path, status), count in sorted(self.counts.items()):
            lines.append(f'{name}{{method="{method}",path="{path}",status="{status}"}} {count}')
        return "".join(f"{line}\n" for line in lines)
