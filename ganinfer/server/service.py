"""What all doors of the server share: the models, the limits, and whether it is ready."""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from ganinfer.errors import QueueFull, RequestError
from ganinfer.sampler import Sampler
from ganinfer.scheduler.sizes import doubled_up_to
from ganinfer.server.answers import too_large
from ganinfer.server.counts import Counts, Tally
from ganinfer.server.keys import read_keys
from ganinfer.server.serving import Serving
from ganinfer.server.shelf import Shelf
from ganinfer.server.siblings import Siblings

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_QUICK_S = 0.02  # work that takes less is not worth watching the client for


class Service:
    """The models of this process.

    Attributes:
        shelf: that lends their samplers.
        keys: that clients must show one of; None if they need none.
        counts, grpc_counts: of requests over HTTP and over gRPC.
        tallies: of models, by their names.
        films: packs films, one at a time: they take seconds, and no picture shall wait for them.
        draining: the host stops; set by it or by the end of the application.
    """

    def __init__(self, shelf: Shelf, serving: Serving, siblings: Siblings | None = None) -> None:
        """Errors as of `ganinfer.server.app`; siblings: the other processes of this server."""
        self.shelf, self.serving, self._siblings = shelf, serving, siblings
        self.keys = None if serving.api_keys is None else read_keys(serving.api_keys)
        self.counts = Counts(
            "ganinfer_http_requests_total", "Requests over HTTP.", ("method", "path", "status")
        )
        self.grpc_counts = Counts(
            "ganinfer_grpc_requests_total", "Requests over gRPC.", ("method", "status")
        )
        self.tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self.films = ThreadPoolExecutor(1, "ganinfer film")
        self.draining = False
        self._warm = False

    @property
    def live(self) -> bool:
        """Whether this process can still serve."""
        return all(sampler.live for sampler in self.shelf.samplers.values())

    @property
    def ready(self) -> bool:
        """Whether requests should come here: warm, not about to stop, and no queue is full."""
        serving = self._warm and not self.draining
        return serving and all(sampler.ready for sampler in self.shelf.samplers.values())

    def ready_for(self, name: str) -> bool:
        """The same for one model; 404 if there is none."""
        return self.shelf.ready(name) and self._warm and not self.draining

    async def warm_up(self) -> None:
        """Draw 1, 2, 4, ... images, and a whole batch, of all that is open; then be ready."""
        try:
            for name in self.shelf.samplers:
                if name in self.shelf.samplers:  # still, so that there is nothing to wait for
                    async with self.shelf.lent(name, math.inf) as (sampler, _):
                        await _draw_each_size(sampler)
        except Exception:
            log.exception("it does not warm up, and will not be ready")
        else:
            self._warm = True

    def figures(self) -> dict[str, Any]:
        """What this process has counted, as `json.dumps` takes it."""
        samplers = dict.fromkeys(self.shelf.samplers.values())
        stats = [(one.sha256, one.stats) for one in samplers]
        return {"samplers": stats, "http": self.counts.read(), "grpc": self.grpc_counts.read()}

    async def all_figures(self) -> Mapping[int | None, dict[str, Any]]:
        """Those of each worker that answers, by its number, or of None if there is but one."""
        own = self.figures()
        return {None: own} if self._siblings is None else await self._siblings.figures(own)

    def telling(self) -> AbstractAsyncContextManager[None]:
        """Within it the other workers get the figures of this one."""
        return nullcontext() if self._siblings is None else self._siblings.telling(self.figures)

    def most_images(self, height: int, width: int) -> int:
        """Of that size, that one request may have."""
        return min(self.serving.max_images, int(1e6 * self.serving.max_megapixels / height / width))

    def check_size(self, sampler: Sampler, n: int, *, scale: int = 1) -> None:
        """Refuse more images or pixels than one request may have, by 413.

        scale: that images are enlarged by before they are packed.
        """
        if n > self.serving.max_images:
            raise too_large(f"found {n} images; at most {self.serving.max_images} a request")
        height, width = (scale * side for side in sampler.shape[:2])
        if n * height * width > 1e6 * self.serving.max_megapixels:
            raise too_large(
                f"found {n} images of {width}x{height} pixels; at most"
                f" {self.serving.max_megapixels:g} million pixels a request"
            )

    async def answered(self, request: Request, work: Awaitable[Result]) -> Result:
        """What work gives; if the client hangs up before, the work is cancelled.

        Raises:
            ClientDisconnect: it has. Others as of the work.
        """
        task, gone, waits = asyncio.current_task(), None, True
        assert task is not None

        def watch() -> None:
            nonlocal gone
            gone = asyncio.ensure_future(_gone(request))
            gone.add_done_callback(lambda _: task.cancel() if waits else None)

        timer = asyncio.get_running_loop().call_later(_QUICK_S, watch)
        try:
            return await work
        except asyncio.CancelledError:
            if gone is not None and gone.done() and not task.uncancel():
                raise ClientDisconnect from None
            raise  # the host has cancelled it
        finally:
            waits = False
            timer.cancel()
            if gone is not None:
                gone.cancel()


async def _draw_each_size(sampler: Sampler) -> None:
    for size in doubled_up_to(sampler.batch_size):
        while True:
            try:
                await sampler.asample(size)
                break
            except QueueFull:  # of requests that did not wait until this is ready
                await asyncio.sleep(0.1)
            except RequestError:  # no request may be so large; batches of several are, now and then
                return


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # a body that nobody asked for


def service_of(request: Request) -> Service:
    """Of the application that was asked."""
    service: Service = request.app.state.service
    return service
