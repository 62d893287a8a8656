"""Images that somebody waits for, and how they are shared out to batches."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs, Wanted

if TYPE_CHECKING:
    from opentelemetry.trace import Span


@dataclass(eq=False)
class Request:
    """Images that somebody waits for.

    Attributes:
        wanted: what they are drawn from, or their inputs.
        images: uint8 (N, H, W, C), filled in as they come.
        out: the caller's own buffer, filled only once nobody can take the request back.
        deadline: by time.monotonic(); at it the request fails, whatever is done of it.
        future: gets the images when all are there.
        begun: when its first batch was begun; 0 if none was.
        taken, finished: how many images batches have begun and ended.
        told: whether `answer` or `fail` is under way.
        span: that traces it, see `ganinfer.scheduler.tracing`.
    """

    wanted: Wanted | Inputs
    images: Images
    out: Images | None = None
    deadline: float | None = None
    future: "Future[Images]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    begun: float = 0.0
    taken: int = 0
    finished: int = 0
    told: bool = False
    span: "Span | None" = None

    @property
    def waiting(self) -> int:
        """Images that no worker has taken yet."""
        return 0 if self.future.done() else len(self.images) - self.taken

    def late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and now > self.deadline

    @property
    def complete(self) -> bool:
        """Whether all images are there."""
        return self.finished == len(self.images)

    def keep(self) -> bool:
        """From now on nobody can take it back. Called once, before `answer` or `fail`.

        Returns:
            False if it was taken back before; who waits for that is told.
        """
        return self.future.set_running_or_notify_cancel()

    def answer(self) -> None:
        """Give the images."""
        if self.out is not None and self.out is not self.images:
            np.copyto(self.out, self.images)
            self.images = self.out
        self.future.set_result(self.images)

    def fail(self, error: BaseException) -> None:
        """Say why there are no images, unless that is known."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True)
class Piece:
    """Images start to stop of a request."""

    request: Request
    start: int
    stop: int

    @property
    def wanted(self) -> Wanted | Inputs:
        """What they are drawn from."""
        return self.request.wanted.rows(self.start, self.stop)

    @property
    def images(self) -> Images:
        """Where they go."""
        return self.request.images[self.start : self.stop]

    def __len__(self) -> int:
        return self.stop - self.start


def share(queue: Sequence[Request], size: int) -> list[Piece]:
    """Take so many images off the queue, of each request its share; small ones leave room."""
    pieces = []
    order = sorted(queue[:size], key=lambda request: request.waiting)
    for n, request in enumerate(order):
        fair = -(-size // (len(order) - n))
        count = min(request.waiting, fair, size)
        if count:
            pieces.append(Piece(request, request.taken, request.taken + count))
            request.taken += count
            size -= count
    return pieces
