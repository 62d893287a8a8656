"""What a Sampler has done since it was opened: counts, and how long it took; and what waits now."""

import threading
from bisect import bisect_left
from collections import deque
from itertools import accumulate
from typing import Any

import numpy as np

from ganinfer.errors import Closed, DeadlineExceeded
from ganinfer.scheduler.request import Request

# Upper bounds of the buckets of all histograms, in seconds; a last one takes what is longer.
BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_LE = (*map(str, BOUNDS_S), "+Inf")
_OUTCOMES = ("answered", "late", "cancelled", "failed", "closed")
_COUNTS = (
    *("refused", "invalid", "images", "padded", "batches", "failed_batches"),
    *("queue_requests", "queue_images", "in_flight"),
)
_KEPT = 4096  # times that percentiles are taken of
_PERCENTILES = {
    "queue_ms": "queue_seconds",
    "request_ms": "request_seconds",
    "device_ms": "batch_seconds",
}


def outcome_of(error: BaseException | None) -> str:
    """How a request ended that nobody took back: "answered", "late", "closed" or "failed"."""
    if error is None:
        return "answered"
    if isinstance(error, DeadlineExceeded):
        return "late"
    return "closed" if isinstance(error, Closed) else "failed"


class Times:
    """A histogram of times, and the last thousands of them. Its owner has a lock."""

    def __init__(self) -> None:
        self.sum = 0.0
        self.last: deque[float] = deque(maxlen=_KEPT)
        self._counts = [0] * len(_LE)

    def add(self, seconds: float) -> None:
        """One more."""
        self.sum += seconds
        self.last.append(seconds)
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1

    def read(self) -> dict[str, Any]:
        """buckets: how many were at most so long, by the bound; sum: seconds; count: of all."""
        buckets = dict(zip(_LE, accumulate(self._counts), strict=True))
        return {"buckets": buckets, "sum": self.sum, "count": buckets["+Inf"]}


class Stats:
    """Told of every request and batch; read at any time, by any thread.

    A request enters by `queued` or `begun_at_once`, and leaves by `ended`. In between it is either
    in the queue or in flight, so that at any time the counts of all that entered add up.

    Attributes:
        largest_batch: images in the largest batch that was run, padding included.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes, self._counts = dict.fromkeys(_OUTCOMES, 0), dict.fromkeys(_COUNTS, 0)
        self._latents_s = 0.0
        self.largest_batch = 0
        self._times = {name: Times() for name in _PERCENTILES.values()}

    def queued(self, request: Request) -> None:
        """A request waits in the queue."""
        with self._lock:
            self._counts["queue_requests"] += 1
            self._counts["queue_images"] += len(request.images)

    def left_queue(self, request: Request) -> None:
        """A request waits no more: its last image is begun, or it is to be told an error."""
        with self._lock:
            self._counts["queue_requests"] -= 1
            self._counts["queue_images"] -= len(request.images)
            self._counts["in_flight"] += 1

    def begun_at_once(self) -> None:
        """A request is run that never was in the queue."""
        with self._lock:
            self._counts["in_flight"] += 1

    def refused(self) -> None:
        """A request found the queue full."""
        with self._lock:
            self._counts["refused"] += 1

    def invalid(self) -> None:
        """A request asked for what the model cannot serve."""
        with self._lock:
            self._counts["invalid"] += 1

    def ended(self, request: Request, outcome: str, now: float) -> None:
        """A request that is not in the queue is told.

        Args:
            request: that it is.
            outcome: "cancelled", or that of `outcome_of`.
            now: by time.monotonic().
        """
        with self._lock:
            self._counts["in_flight"] -= 1
            self._outcomes[outcome] += 1
            if outcome == "answered":
                self._times["queue_seconds"].add(request.begun - request.arrived)
                self._times["request_seconds"].add(now - request.arrived)

    def batch(self, *, images: int, size: int, draw_s: float, run_s: float) -> None:
        """A batch of so many images was run in a size, after its latents were drawn."""
        with self._lock:
            self._counts["batches"] += 1
            self._counts["images"] += images
            self._counts["padded"] += size - images
            self.largest_batch = max(self.largest_batch, size)
            self._latents_s += draw_s
            self._times["batch_seconds"].add(run_s)

    def failed_batch(self) -> None:
        """A batch failed."""
        with self._lock:
            self._counts["failed_batches"] += 1

    def read(self) -> dict[str, Any]:
        """All figures by name, as JSON has them.

        Returns:
            requests: that were answered.
            late, cancelled, failed, closed: requests that ended otherwise: at their deadline, taken
                back by their caller, by an error of the backend, by close(cancel=True).
            queue_requests, queue_images: that wait in the queue, as max_queue and max_queue_images
                count them: a request with all its images until the last of them is begun.
            in_flight: requests that have left the queue and are not yet told.
            refused: requests that found the queue full, and are counted nowhere else; invalid: that
                asked for what the model cannot serve, likewise.
            images, batches: that were run. padded: images that were run for nobody.
            failed_batches: runs that failed.
            fill: share of the images that were run that somebody had asked for.
            latents_s, device_s: seconds of all threads.
            queue_seconds: histogram of the time until the first batch of a request was begun;
                request_seconds: until it was answered; of those that were answered.
                batch_seconds: of the time of a batch in the backend.
            queue_ms, request_ms, device_ms: p50, p90 and p99 of the last thousands of these.
        """
        with self._lock:
            outcomes, counts, latents_s = {**self._outcomes}, {**self._counts}, self._latents_s
            histograms = {name: times.read() for name, times in self._times.items()}
            last = {name: list(times.last) for name, times in self._times.items()}
        run = counts["images"] + counts["padded"]
        found: dict[str, Any] = {"requests": outcomes.pop("answered"), **outcomes, **counts}
        found["fill"] = counts["images"] / run if run else 1.0
        found |= {"latents_s": latents_s, "device_s": histograms["batch_seconds"]["sum"]}
        for name, of in _PERCENTILES.items():
            values = 1000 * np.percentile(last[of], (50, 90, 99)) if last[of] else np.zeros(3)
            found[name] = dict(zip(("p50", "p90", "p99"), values.tolist(), strict=True))
        return found | histograms
