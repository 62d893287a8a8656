"""Merges the requests of many callers into batches of the device, fairly, and none is lost.

Workers take batches greedily: what waits is run, nothing waits for company. Of several requests
each gets its share of a batch, so that a large one holds up no small one. Latents are drawn by the
worker that takes the batch, while another keeps the device busy.

What takes next to no time is run where it is asked for, since a change of threads costs more: in
the thread of a caller who waits, and for callers on an event loop in the loop's own, which takes
all that one turn of it has brought.
"""

import contextlib
import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs, Wanted
from ganinfer.errors import Closed, DeadlineExceeded, QueueFull
from ganinfer.host.budget import budget
from ganinfer.scheduler.deadlines import Deadlines
from ganinfer.scheduler.request import Piece, Request, share
from ganinfer.scheduler.sizes import WHOLE_S, RunTimes, most, next_batch, padded_size
from ganinfer.scheduler.stats import Stats, outcome_of
from ganinfer.scheduler.tracing import Tracing

if TYPE_CHECKING:
    from ganinfer.backends._base import Backend, SupportsDLPack

log = logging.getLogger(__name__)

Soon = Callable[[Callable[[], None]], object]  # has something called by the loop's next turn
Draw = Callable[[Sequence[Wanted | Inputs]], Inputs]


class Batcher:
    """A bounded queue, and the workers that empty it into the backends."""

    def __init__(
        self,
        backends: Sequence["Backend"],
        draw: Draw,
        *,
        largest: int,
        max_queue: int,
        max_queue_images: int,
        max_wait_ms: float,
        stats: Stats,
        tracing: Tracing | None = None,
    ) -> None:
        """Workers start with the first request.

        Args:
            backends: one a device.
            draw: makes one batch's inputs.
            largest: images in a batch, at most.
            max_queue: requests that may wait. max_queue_images: images that they may have in all.
            max_wait_ms: how long a batch that is not full waits for company.
            stats, tracing: are told of every request and batch.
        """
        self.backends, self._draw, self._largest = backends, draw, largest
        self._max_queue, self._max_queue_images = max_queue, max_queue_images
        self._max_wait = max_wait_ms / 1000
        self._stats, self._tracing = stats, tracing or Tracing()
        self._queue: list[Request] = []
        self._images = 0  # of the queue
        self._changed = threading.Condition()
        self._workers: list[threading.Thread] = []
        self._running: Counter[Backend] = Counter()
        self._run_times = RunTimes()
        self._promised: Soon | None = None  # by the loop that will take what waits
        self._open: set[Request] = set()  # that were queued, and not yet told
        self._closed = False
        self._deadlines = Deadlines(self._expire)

    def submit(self, request: Request, soon: Soon | None = None) -> "Future[Images]":
        """Queue a request; its future gets the images, or why there are none.

        Args:
            request: that is queued.
            soon: `call_soon` of the caller's event loop, which then runs it if it is short.

        Raises:
            QueueFull: too many are waiting. Closed: this is closed.
        """
        self._tracing.begin(request)
        if not len(request.images):
            self._begin_at_once(request)
            self._settle(request)
            return request.future
        answers: list[Callable[[], None]] = []
        promises = False
        with self._changed:
            if self._closed:
                raise Closed("this Sampler is closed; open it again")
            full = self._full_for(request)
            if full:
                answers = self._forget_done()
                full = self._full_for(request)
            if not full:
                self._queue.append(request)
                self._open.add(request)
                self._images += len(request.images)
                self._stats.queued(request)
                if not self._workers:
                    self._start()
                if soon is not None and self._is_for_the_loop():
                    promises, self._promised = self._promised != soon, soon
                else:
                    self._promised = None
                    if not all(self._is_soon_free(self._images, b) for b in self.backends):
                        self._changed.notify_all()
        _tell(answers)
        if full:
            self._stats.refused()
            self._tracing.end(request, "refused", full)
            raise full
        if request.deadline is not None:
            self._deadlines.add(request)
        if promises and soon is not None:
            soon(self._keep_promise)
        return request.future

    def _is_for_the_loop(self) -> bool:
        """Whether what waits is sooner done without a change of threads."""
        backend = self.backends[0]
        idle = not any(self._running.values()) and not self._max_wait
        return idle and backend.device == "cpu" and self._are_short(self._images, backend)

    def _keep_promise(self) -> None:
        """Run what waits, as one batch in this thread; leave it to the workers if it is more."""
        backend, pieces = self.backends[0], None
        with self._changed:
            self._promised = None
            answers = self._forget_done()
            if self._queue and self._is_for_the_loop():
                pieces, _ = self._cut(backend, self._images) or (None, False)
            elif self._queue:
                self._changed.notify_all()
        _tell(answers)
        if pieces:
            _tell(self._attempt(backend, pieces, alone=False))

    def _full_for(self, request: Request) -> QueueFull | None:
        """Why the queue cannot take it, if that is so."""
        waiting = len(self._queue)
        if waiting >= self._max_queue:
            return QueueFull(
                f"{waiting} requests are waiting, and max_queue is {self._max_queue}; ask again"
                " later, or open with a larger max_queue"
            )
        if self._images + len(request.images) > self._max_queue_images:
            return QueueFull(
                f"{self._images} images wait, and max_queue_images is {self._max_queue_images};"
                f" {len(request.images)} more do not fit: ask again later, or open with a larger"
                " max_queue_images"
            )
        return None

    def serve(self, request: Request) -> "Future[Images]":
        """Run a request in the caller's thread if nothing else is to do and it is one batch.

        That saves a caller who waits anyway two changes of threads. So is what a worker itself asks
        for, when it calls back: the queue would wait for it. Else as `submit`.
        """
        backend, n = self.backends[0], len(request.images)
        called_back = threading.current_thread() in self._workers
        with self._changed:
            here = n > 0 and not self._closed and (called_back or self._is_alone(request))
            if here:
                self._running[backend] += 1
                self._begin_at_once(request)
        if not here:
            return self.submit(request)
        self._tracing.begin(request)
        if request.out is not None:
            request.images = request.out  # nobody can take it back
        step, error = most(self._largest, backend), None
        try:
            for at in range(0, n, step):
                piece = Piece(request, at, min(at + step, n))
                error = error or self._try(backend, [piece], alone=not called_back)
        finally:
            self._ended(backend)
        self._settle(request, error)
        return request.future

    def _is_alone(self, request: Request) -> bool:
        """Whether it is one batch and nothing else is to do, nor may anybody tell it before."""
        busy = self._queue or self._max_wait or any(self._running.values())
        if busy or request.deadline is not None:
            return False
        backend, n = self.backends[0], len(request.images)
        short = not backend.pads and self._run_times.are_short(backend, n, WHOLE_S)
        return n == next_batch(n, self._largest, backend, running=0, short=short)

    def run_whole(self, request: Request) -> None:
        """Run a request as one batch in this thread: on one thread of the device, and on all.

        Raises:
            What the backend does.
        """
        backend, n = self.backends[0], len(request.images)
        for alone in sorted({True, backend.parallel_runs == 1}):
            self._run(backend, [Piece(request, 0, n)], alone=alone)

    def run_on_device(self, inputs: Inputs) -> "SupportsDLPack":
        """Run one batch whose images stay on the first device, beside the queue.

        Raises:
            Closed: this is closed. BackendUnavailable: the device hands out no memory.
        """
        backend, n = self.backends[0], len(inputs)
        request = Request(inputs, np.empty((n, 0, 0, 0), np.uint8))  # they stay there
        with self._changed:
            if self._closed:
                raise Closed("this Sampler is closed; open it again")
            self._running[backend] += 1
            self._begin_at_once(request)
        self._tracing.begin(request)
        try:
            with self._tracing.batch(backend, [Piece(request, 0, n)]):
                images = backend.run_on_device(inputs)
        except BaseException as error:
            self._stats.failed_batch()
            self._settle(request, error)
            raise
        finally:
            self._ended(backend)
        self._stats.batch(images=n, size=n, draw_s=0.0, run_s=time.monotonic() - request.begun)
        self._settle(request)
        return images

    @property
    def live(self) -> bool:
        """Whether its threads are there."""
        return all(worker.is_alive() for worker in self._workers)

    @property
    def has_room(self) -> bool:
        """Whether the queue takes one more image."""
        return len(self._queue) < self._max_queue and self._images < self._max_queue_images

    def stop(self) -> None:
        """Take no more requests; finish those that are here, and wait for nothing."""
        with self._changed:
            self._closed, self._promised = True, None
            answers = self._forget_done()
            self._changed.notify_all()
        _tell(answers)

    def close(self, *, cancel: bool = False, timeout_s: float | None = None) -> bool:
        """Take no more requests; finish those that are here, or fail those not begun; stop.

        Args:
            cancel: fail what is not begun.
            timeout_s: after which everything fails that is not there; None waits for it.

        Returns:
            Whether all is done. If not, backends are still at work, or it is a worker who asks.
        """
        self.stop()
        if cancel:
            self._fail_all(Closed("this Sampler was closed before its turn"), begun=False)
        if threading.current_thread() in self._workers:
            return False  # it would wait for itself
        with self._changed:
            in_time = self._changed.wait_for(self._idle, timeout_s)
        if not in_time:
            error = f"this Sampler was closed, and its images were not there {timeout_s:g} s later"
            self._fail_all(Closed(error), begun=True)
            if not self._idle():
                return False
        for worker in self._workers:
            worker.join()
        self._deadlines.close()
        return True

    def _idle(self) -> bool:
        """Whether nothing is waited for, and no thread, a caller's neither, is at work."""
        return not self._open and not any(self._running.values())

    def _fail_all(self, error: BaseException, *, begun: bool) -> None:
        """Tell who waits why there are no images; begun: also of what a backend is at."""
        with self._changed:
            failed = [r for r in self._open if begun or r.taken < len(r.images)]
            answers = [self._settling(request, error) for request in failed]
            self._queue, self._images = [], 0
            self._changed.notify_all()
        _tell(answers)

    def _start(self) -> None:
        for backend in self.backends:
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
            _tell(self._attempt(backend, pieces, alone=alone))
            del pieces, taken  # while it waits it keeps nobody's images

    def _attempt(
        self, backend: "Backend", pieces: list[Piece], *, alone: bool
    ) -> list[Callable[[], None]]:
        """Run a batch; if that fails, each of its requests alone: one of them may be the reason.

        Returns:
            The answers to requests that have come to an end. They are to be called last, since they
            call back whoever waits.
        """
        try:
            error = self._try(backend, pieces, alone=alone)
            if error is None or len(pieces) == 1:
                errors = [error] * len(pieces)
            else:
                errors = [self._try(backend, [piece], alone=alone) for piece in pieces]
        finally:
            self._ended(backend)
        answers: list[Callable[[], None]] = []
        with self._changed:
            for piece, error in zip(pieces, errors, strict=True):
                request = piece.request
                request.finished += len(piece) if error is None else 0
                over = error is not None or request.complete or request.future.cancelled()
                if over and not request.told:
                    answers.append(self._settling(request, error))
        return answers

    def _try(self, backend: "Backend", pieces: list[Piece], *, alone: bool) -> BaseException | None:
        """Run a batch; why it failed, or None. The thread lives on, whatever the backend does."""
        try:
            with self._tracing.batch(backend, pieces):
                self._run(backend, pieces, alone=alone)
        except BaseException as error:
            count = len(pieces)
            log.warning("a batch of %d requests failed on %s: %s", count, backend.device, error)
            self._stats.failed_batch()
            return error
        return None

    def _ended(self, backend: "Backend") -> None:
        with self._changed:
            self._running[backend] -= 1
            if self._queue or self._closed:  # else nobody waits for it
                self._changed.notify_all()

    def _take(self, backend: "Backend") -> tuple[list[Piece], bool] | None:
        """The next batch for a backend, and whether nothing else is to do; None at the end."""
        while True:
            with self._changed:
                answers = self._forget_done()
                pending = sum(request.waiting for request in self._queue)
                if answers:
                    pass  # they are given first, outside of the lock
                elif pending and (rest := self._patience(pending, backend)) > 0:
                    self._changed.wait(rest)
                elif self._promised or (pending and self._is_soon_free(pending, backend)):
                    self._changed.wait()
                elif self._queue:  # or all of it was cancelled at this moment
                    if taken := self._cut(backend, pending):
                        return taken
                elif self._closed:
                    return None
                else:
                    self._changed.wait()
            _tell(answers)

    def _cut(self, backend: "Backend", pending: int) -> tuple[list[Piece], bool] | None:
        """Take a batch off the queue; None if all was cancelled at this moment."""
        running = self._running[backend]
        asked = sum(len(request.images) for request in self._queue)
        short, largest = self._are_short(pending, backend), min(pending, self._largest)
        size = next_batch(asked, largest, backend, running=running, short=short)
        pieces = share(self._queue, size)
        if not pieces:
            return None
        now = time.monotonic()
        for piece in pieces:
            request = piece.request
            request.begun = request.begun or now
            if request.taken == len(request.images):
                self._stats.left_queue(request)
                self._queue.remove(request)
                self._images -= len(request.images)
        self._running[backend] += 1
        return pieces, running == 0 and size == pending and not short

    def _patience(self, pending: int, backend: "Backend") -> float:
        """Seconds that a batch of so few images may wait for company yet."""
        if not self._max_wait or pending >= most(self._largest, backend) or self._closed:
            return 0.0
        until = [r.arrived + self._max_wait for r in self._queue]
        if any(r.deadline is not None and r.deadline < until[0] for r in self._queue):
            return 0.0
        return until[0] - time.monotonic()

    def _are_short(self, pending: int, backend: "Backend") -> bool:
        """Whether runs of so many images, less than a batch, take next to no time."""
        whole = pending < self._largest and not backend.pads
        return whole and self._run_times.are_short(backend, pending)

    def _is_soon_free(self, pending: int, backend: "Backend") -> bool:
        """Whether so few images are sooner done when the run that is under way has ended."""
        return self._running[backend] > 0 and self._are_short(pending, backend)

    def _forget_done(self) -> list[Callable[[], None]]:
        """Drop what needs no worker: taken wholly, cancelled, failed, late; what to answer."""
        now, answers, queue = time.monotonic(), list[Callable[[], None]](), list[Request]()
        for request in self._queue:
            if request.told:
                continue
            if request.future.cancelled():
                answers.append(self._settling(request))
            elif request.taken < len(request.images):
                if request.late(now):
                    answers.append(self._too_late(request))
                else:
                    queue.append(request)
        self._queue, self._images = queue, sum(len(request.images) for request in queue)
        return answers

    def _begin_at_once(self, request: Request) -> None:
        """A request is run that was not in the queue."""
        request.taken, request.begun = len(request.images), time.monotonic()
        self._stats.begun_at_once()

    def _settling(self, request: Request, error: BaseException | None = None) -> Callable[[], None]:
        """What tells a request its images or an error, once; called under the lock."""
        request.told = True
        self._open.discard(request)
        if request.taken < len(request.images):
            self._stats.left_queue(request)
        if self._closed:
            self._changed.notify_all()  # whoever closes waits for the last one
        return functools.partial(self._settle, request, error)

    def _settle(self, request: Request, error: BaseException | None = None) -> None:
        """Tell a request, and count it as what its caller sees."""
        kept = request.keep()
        outcome = outcome_of(error) if kept else "cancelled"
        self._stats.ended(request, outcome, time.monotonic())
        try:
            self._tracing.end(request, outcome, error if kept else None)
        finally:
            if kept and error is None:
                request.answer()
            elif kept and error is not None:
                request.fail(error)

    def forked(self) -> None:
        """In a process that was forked off: nobody works for what was asked for before."""
        error = Closed("asked for before this process was forked off; ask again in it")
        for request in self._open:
            # A thread that is not here may have held its lock; whom it calls back, the parent does.
            request.future._condition = threading.Condition()
            request.future._done_callbacks = []  # type: ignore[attr-defined]
            request.fail(error)

    def _expire(self, request: Request) -> None:
        """Tell a request that its time is up, unless it was told before; what runs, runs on."""
        with self._changed:
            if request.told or request.future.done():
                return
            answer = self._too_late(request)
            self._changed.notify_all()
        _tell([answer])

    def _too_late(self, request: Request) -> Callable[[], None]:
        """What tells a request that its deadline has passed; called under the lock."""
        missing, n = len(request.images) - request.finished, len(request.images)
        error = DeadlineExceeded(
            f"{missing} of {n} images were not there at the deadline; allow more time, or ask for"
            " fewer"
        )
        return self._settling(request, error)

    def _run(self, backend: "Backend", pieces: list[Piece], *, alone: bool) -> None:
        """Draw the inputs, run them as one batch, put the images where they belong."""
        began = time.monotonic()
        inputs = self._draw([piece.wanted for piece in pieces])
        n, drawn = len(inputs), time.monotonic()
        size = padded_size(n, self._largest, backend)
        if len(pieces) == 1 and size == n:
            with computing(backend, alone=alone):
                backend.run(inputs, out=pieces[0].images, alone=alone)
        else:
            with computing(backend, alone=alone):
                images = backend.run(inputs.padded(size), alone=alone)
            row = 0
            for piece in pieces:
                piece.images[:] = images[row : row + len(piece)]
                row += len(piece)
        ended = time.monotonic()
        self._run_times.add(backend, n, ended - drawn)
        self._stats.batch(images=n, size=size, draw_s=drawn - began, run_s=ended - drawn)


def computing(backend: "Backend", *, alone: bool) -> AbstractContextManager[None]:
    """Within it a run has the threads that it computes with; those of a GPU are its own."""
    if backend.device != "cpu":
        return contextlib.nullcontext()
    threads = int(backend.details.get("threads", backend.parallel_runs))
    return budget().taking(threads if alone else max(1, threads // backend.parallel_runs))


def _tell(answers: Iterable[Callable[[], None]]) -> None:
    """Answer requests, which calls back whoever waits; they may do anything but end our thread."""
    for answer in answers:
        try:
            answer()
        except BaseException as error:
            log.warning("what a Future called back raised %r", error)
