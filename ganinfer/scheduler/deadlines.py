"""Requests that are told at their deadline, whatever the device is at."""

import heapq
import itertools
import threading
import time
import weakref
from collections.abc import Callable

from ganinfer.scheduler.request import Request

_FEW = 1024


class Deadlines:
    """A thread that sleeps until the next deadline; it starts with the first one.

    Requests are held weakly: images that have come are nobody's business here.
    """

    def __init__(self, expire: Callable[[Request], None]) -> None:
        """expire: is called, once and in that thread, with each request whose time is up."""
        self._expire = expire
        self._heap: list[tuple[float, int, weakref.ref[Request]]] = []
        self._numbers = itertools.count()
        self._most = _FEW
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, request: Request) -> None:
        """Watch a request that has a deadline."""
        assert request.deadline is not None
        with self._changed:
            heapq.heappush(
                self._heap, (request.deadline, next(self._numbers), weakref.ref(request))
            )
            if len(self._heap) > self._most:  # most were answered long before
                self._heap = [entry for entry in self._heap if _open(entry[2])]
                heapq.heapify(self._heap)
                self._most = max(_FEW, 2 * len(self._heap))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._watch, name="ganinfer deadlines", daemon=True
                )
                self._thread.start()
            elif self._heap and self._heap[0][0] == request.deadline:  # all may be answered by now
                self._changed.notify()

    def close(self) -> None:
        """Watch no more."""
        with self._changed:
            self._closed = True
            self._heap.clear()
            self._changed.notify()

    def _watch(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                rest = self._heap[0][0] - time.monotonic() if self._heap else None
                if rest is None or rest > 0:
                    self._changed.wait(rest)
                    continue
                request = heapq.heappop(self._heap)[2]()
            if request is not None:
                self._expire(request)
            del request


def _open(entry: weakref.ref[Request]) -> bool:
    request = entry()
    return request is not None and not request.future.done()
