"""Merges the requests of many callers into batches of the device, fairly, and none is lost.

Workers take batches greedily: what waits is run, nothing waits for company. Of several requests
each gets its share of a batch, so that a large one holds up no small one. Latents are drawn by the
worker that takes the batch, while another keeps the device busy.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ganinfer.errors import DeadlineExceeded, QueueFull, RequestError
from ganinfer.images import Images
from ganinfer.inputs import Inputs, Wanted
from ganinfer.stats import Stats

if TYPE_CHECKING:
    from ganinfer.backends import Backend

log = logging.getLogger(__name__)

Draw = Callable[[Sequence[Wanted | Inputs]], Inputs]


@dataclass(eq=False)
class Request:
    """Images that somebody waits for.

    Attributes:
        wanted: what they are drawn from, or their inputs.
        images: uint8 (N, H, W, C), filled in as they come.
        deadline: by time.monotonic(); what is not taken by then fails.
        future: gets `images` when all are there.
    """

    wanted: Wanted | Inputs
    images: Images
    deadline: float | None = None
    future: "Future[Images]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    taken: int = 0
    finished: int = 0

    @property
    def waiting(self) -> int:
        """Images that no worker has taken yet."""
        return 0 if self.future.done() else len(self.images) - self.taken


@dataclass(frozen=True)
class Piece:
    """Images start to stop of a request."""

    request: Request
    start: int
    stop: int


class Batcher:
    """A bounded queue, and the workers that empty it into the backends."""

    def __init__(
        self,
        backends: Sequence["Backend"],
        draw: Draw,
        *,
        largest: int,
        max_queue: int,
        max_wait_ms: float,
        stats: Stats,
    ) -> None:
        """Workers start with the first request.

        Args:
            backends: one a device.
            draw: makes one batch's inputs.
            largest: images in a batch, at most.
            max_queue: requests that may wait.
            max_wait_ms: how long a batch that is not full waits for company.
            stats: is told of every batch.
        """
        self._backends, self._draw, self._largest = backends, draw, largest
        self._max_queue, self._max_wait = max_queue, max_wait_ms / 1000
        self._stats = stats
        self._queue: list[Request] = []
        self._changed = threading.Condition()
        self._workers: list[threading.Thread] = []
        self._running: dict[Backend, int] = {}
        self._closed = False

    def submit(self, request: Request) -> "Future[Images]":
        """Queue a request; its future gets the images, or why there are none.

        Raises:
            QueueFull: too many are waiting. RequestError: this is closed.
        """
        if not len(request.images):
            request.future.set_result(request.images)
            return request.future
        with self._changed:
            if self._closed:
                raise RequestError("this Sampler is closed; open it again")
            if len(self._queue) >= self._max_queue:
                self._forget_done()
            if len(self._queue) >= self._max_queue:
                raise QueueFull(
                    f"{len(self._queue)} requests are waiting, and max_queue is"
                    f" {self._max_queue}; ask again later, or open with a larger max_queue"
                )
            self._queue.append(request)
            if not self._workers:
                self._start()
            self._changed.notify_all()
        return request.future

    def serve(self, request: Request) -> "Future[Images]":
        """Run a request in the caller's thread if nothing else is to do and it is one batch.

        That saves a caller who waits anyway two changes of threads. Else as `submit`.
        """
        backend, n = self._backends[0], len(request.images)
        with self._changed:
            busy = self._queue or any(self._running.values())
            idle = not (busy or self._closed or self._max_wait)
            whole = n > 0 and n == next_batch(n, self._largest, backend, running=0)
            if idle and whole:
                self._running[backend], request.taken = 1, n
        if not (idle and whole):
            return self.submit(request)
        self._attempt(backend, [Piece(request, 0, n)], alone=True)
        return request.future

    def close(self, *, cancel: bool = False, wait: bool = True) -> None:
        """Take no more requests; finish those that are here, or fail those not begun; stop."""
        with self._changed:
            self._closed = True
            if cancel:
                for request in self._queue:
                    if request.waiting:
                        _fail(request, RequestError("this Sampler was closed before its turn"))
            self._changed.notify_all()
        if wait:
            with self._changed:  # callers may be at work in threads of their own
                self._changed.wait_for(lambda: not any(self._running.values()), timeout=60)
        for worker in self._workers if wait else ():
            if worker is not threading.current_thread():
                worker.join()

    def _start(self) -> None:
        for backend in self._backends:
            # One more than the device needs: it draws latents while the others run.
            count = backend.parallel_runs if backend.device == "cpu" else backend.parallel_runs + 1
            for n in range(count):
                name = f"ganinfer {backend.name} {backend.device} {n}"
                worker = threading.Thread(target=self._work, args=(backend,), name=name)
                worker.daemon = True  # a program that forgets to close still ends
                worker.start()
                self._workers.append(worker)

    def _work(self, backend: "Backend") -> None:
        while (taken := self._take(backend)) is not None:
            pieces, alone = taken
            self._attempt(backend, pieces, alone=alone)
            del pieces, taken  # while it waits it keeps nobody's images

    def _attempt(self, backend: "Backend", pieces: list[Piece], *, alone: bool) -> None:
        """Run a batch; if that fails, each of its requests alone: one of them may be the reason."""
        if not self._try(backend, pieces, alone=alone):
            for piece in pieces if len(pieces) > 1 else ():
                if not piece.request.future.done():
                    self._try(backend, [piece], alone=alone)
        with self._changed:
            self._running[backend] -= 1
            self._changed.notify_all()

    def _try(self, backend: "Backend", pieces: list[Piece], *, alone: bool) -> bool:
        """Run a batch. If it fails and is of one request, so does that, and nothing else."""
        try:
            self._run(backend, pieces, alone=alone)
        except BaseException as error:  # the thread must live on, whatever the backend does
            log.warning(
                "a batch of %d requests failed on %s: %s", len(pieces), backend.device, error
            )
            self._stats.failed()
            if len(pieces) == 1:
                _fail(pieces[0].request, error)
            return False
        return True

    def _take(self, backend: "Backend") -> tuple[list[Piece], bool] | None:
        """The next batch for a backend, and whether nothing else is to do; None at the end."""
        with self._changed:
            while True:
                self._forget_done()
                if pending := sum(request.waiting for request in self._queue):
                    if (rest := self._patience(pending)) <= 0:
                        break
                    self._changed.wait(rest)
                elif self._closed:
                    return None
                else:
                    self._changed.wait()
            running = self._running.get(backend, 0)
            asked = sum(len(request.images) for request in self._queue)
            size = next_batch(asked, min(pending, self._largest), backend, running=running)
            self._running[backend] = running + 1
            return _share(self._queue, size), running == 0 and size == pending

    def _patience(self, pending: int) -> float:
        """Seconds that a batch of so few images may wait for company yet."""
        if not self._max_wait or pending >= self._largest or self._closed:
            return 0.0
        return min(r.arrived for r in self._queue) + self._max_wait - time.monotonic()

    def _forget_done(self) -> None:
        """Drop what needs no worker any more: taken wholly, cancelled, failed, or too late."""
        now = time.monotonic()
        for request in self._queue:
            if request.deadline is not None and now > request.deadline and request.waiting:
                late = now - request.deadline
                _fail(
                    request,
                    DeadlineExceeded(
                        f"{request.waiting} of {len(request.images)} images were not begun"
                        f" {late:.3f} s after the deadline; allow more time, or ask for fewer"
                    ),
                )
        self._queue = [request for request in self._queue if request.waiting]

    def _run(self, backend: "Backend", pieces: list[Piece], *, alone: bool) -> None:
        """Draw the inputs, run them as one batch, hand the images out."""
        began = time.monotonic()
        inputs = self._draw([p.request.wanted.rows(p.start, p.stop) for p in pieces])
        n, drawn = len(inputs), time.monotonic()
        size = padded_size(n, self._largest, backend)
        first = pieces[0]
        if len(pieces) == 1 and size == n:
            backend.run(inputs, out=first.request.images[first.start : first.stop], alone=alone)
        else:
            images = backend.run(inputs.padded(size), alone=alone)
            row = 0
            for piece in pieces:
                count = piece.stop - piece.start
                piece.request.images[piece.start : piece.stop] = images[row : row + count]
                row += count
        with self._changed:
            for piece in pieces:
                piece.request.finished += piece.stop - piece.start
            done = [p.request for p in pieces if p.request.finished == len(p.request.images)]
        ended = time.monotonic()
        self._stats.batch(images=n, size=size, draw_s=drawn - began, run_s=ended - drawn)
        for request in done:
            self._stats.request(began - request.arrived, ended - began)
            _finish(request)


def next_batch(asked: int, largest: int, backend: "Backend", *, running: int) -> int:
    """How many images go into the next batch, at most `largest`, of requests for so many.

    Where sizes are padded, a batch is as full as the largest of them can be. Elsewhere the images
    are shared out among the runs that the device has still threads for, unless they are so few that
    one run with all threads is sooner done. It counts what was asked for, not what is left of it:
    or the shares of one request would shrink as it is served.
    """
    if backend.pads:
        return min(asked, largest, max(backend.batch_sizes, default=largest))
    few = running == 0 and 2 * asked <= backend.parallel_runs
    free = 1 if few else max(backend.parallel_runs - running, 1)
    share = min(-(-asked // free), largest)
    return max((size for size in backend.batch_sizes if size <= share), default=share)


def padded_size(n: int, largest: int, backend: "Backend") -> int:
    """The size that a batch of n images is run in."""
    if not backend.batch_sizes:
        return n
    return min((size for size in backend.batch_sizes if size >= n), default=max(n, largest))


def _share(queue: Sequence[Request], size: int) -> list[Piece]:
    """Take so many images off the queue, of each request its share; small ones leave room."""
    pieces = []
    order = sorted(queue[:size], key=lambda request: request.waiting)
    for n, request in enumerate(order):
        share = -(-size // (len(order) - n))
        count = min(request.waiting, share, size)
        if count:
            pieces.append(Piece(request, request.taken, request.taken + count))
            request.taken += count
            size -= count
    return pieces


def _finish(request: Request) -> None:
    with suppress(InvalidStateError):  # it was cancelled, or failed by another batch
        request.future.set_result(request.images)


def _fail(request: Request, error: BaseException) -> None:
    with suppress(InvalidStateError):
        request.future.set_exception(error)
