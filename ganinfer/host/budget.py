"""The threads of this process that compute on the CPU, shared by all its samplers.

A run takes as many as it computes with, and waits its turn for them; first come, first served.
"""

import os
import threading
from collections import deque

from ganinfer.host.limits import usable_cpus


class Budget:
    """So many threads, to be had one run after the other."""

    def __init__(self, size: int) -> None:
        """size: how many there are."""
        self._size = self._free = size
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._own = threading.local()  # what a thread that asks has already

    def taking(self, threads: int) -> "Share":
        """Within it so many threads are the caller's, all of them if it asks for more.

        What is asked for within it is a part of these.
        """
        return Share(self, min(threads, self._size))

    def take(self, threads: int) -> bool:
        """Wait for so many; False if this thread has some already."""
        if getattr(self._own, "has", False):
            return False
        with self._changed:
            if self._waiting or self._free < threads:
                self._wait(threads)
            self._free -= threads
        self._own.has = True
        return True

    def give_back(self, threads: int) -> None:
        """Those of `take`."""
        self._own.has = False
        with self._changed:
            self._free += threads
            if self._waiting:
                self._changed.notify_all()

    def _wait(self, threads: int) -> None:
        turn = object()
        self._waiting.append(turn)
        try:
            self._changed.wait_for(lambda: self._waiting[0] is turn and self._free >= threads)
        finally:
            self._waiting.remove(turn)
            self._changed.notify_all()


class Share:
    """Threads of a budget while a run computes; a context manager, and a quick one."""

    def __init__(self, budget: Budget, threads: int) -> None:
        """Nothing is taken yet."""
        self._budget, self._threads, self._own = budget, threads, False

    def __enter__(self) -> None:
        self._own = self._budget.take(self._threads)

    def __exit__(self, *raised: object) -> None:
        if self._own:
            self._budget.give_back(self._threads)


_lock = threading.Lock()
_budget: Budget | None = None


def budget() -> Budget:
    """That of this process; its size is told at the first use."""
    global _budget
    with _lock:
        if _budget is None:
            _budget = Budget(usable_cpus())
        return _budget


def _forget() -> None:
    """In a process that was forked off: threads that had some are not here."""
    global _budget, _lock
    _budget, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
