"""The ASGI application: all routes, what stands before them, its beginning and its end."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ganinfer.errors import GanError
from ganinfer.sampler import Sampler
from ganinfer.server.answers import answer_of
from ganinfer.server.gate import Gate
from ganinfer.server.keys import Keys
from ganinfer.server.openai_images import ROUTES as OPENAI
from ganinfer.server.operating import ROUTES as OPERATING
from ganinfer.server.plain import ROUTES as PLAIN
from ganinfer.server.playground import ROUTES as PLAYGROUND
from ganinfer.server.service import Service
from ganinfer.server.serving import Serving
from ganinfer.server.shelf import Shelf
from ganinfer.server.siblings import Siblings
from ganinfer.server.v2 import ROUTES as V2

_SHOWN = ["ETag", "X-Request-Id", "Inference-Header-Content-Length"]  # to pages elsewhere


class Application:
    """What a host runs.

    Attributes:
        service: its models; `service.draining` is for a host that is about to stop.
    """

    def __init__(
        self,
        samplers: Mapping[str, Sampler] | Shelf,
        serving: Serving,
        siblings: Siblings | None = None,
    ) -> None:
        """See `ganinfer.server.app`; siblings: the other workers of this server, if there are."""
        shelf = samplers if isinstance(samplers, Shelf) else Shelf(samplers)
        self.service = Service(shelf, serving, siblings)
        before = []
        if serving.cors:
            before.append(
                Middleware(
                    CORSMiddleware,
                    allow_origins=list(serving.cors),
                    allow_methods=["GET", "POST"],
                    allow_headers=["*"],
                    expose_headers=_SHOWN,
                )
            )
        if self.service.keys is not None:
            before.append(Middleware(Keys, keys=self.service.keys))
        routes = [*V2, *OPENAI, *PLAIN, *PLAYGROUND, *OPERATING]
        inner = Starlette(
            routes=routes,
            middleware=before,
            exception_handlers=dict.fromkeys(
                (HTTPException, ClientDisconnect, GanError, Exception), _answer
            ),
            lifespan=self._lifespan,
        )
        inner.state.service = self.service
        inner.router.redirect_slashes = False
        # The first route of an endpoint is the one without a version.
        paths: dict[object, str] = {route.endpoint: route.path for route in reversed(routes)}
        self._gate = Gate(inner, self.service.counts, paths, log_requests=serving.access_log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gate(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        warming = asyncio.ensure_future(self.service.warm_up())
        try:
            async with self.service.telling():
                yield
        finally:
            self.service.draining = True
            warming.cancel()


async def _answer(request: Request, error: Exception) -> Response:
    return answer_of(request, error)
