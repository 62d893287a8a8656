"""Requests, counted."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ganinfer.prometheus import labelled


class Counts:
    """How many requests there were, by what labels say of them; kept on the event loop alone."""

    def __init__(self, metric: str, said: str, labels: tuple[str, ...]) -> None:
        """metric: its name for Prometheus. said: what that says of it."""
        self._metric, self._said, self._labels = metric, said, labels
        self._counts: Counter[tuple[str | int, ...]] = Counter()

    def add(self, *values: str | int) -> None:
        """One more, of these values of the labels."""
        self._counts[values] += 1

    def read(self) -> list[list[str | int]]:
        """Rows of values and their count, as `json.dumps` takes them."""
        return [[*values, count] for values, count in sorted(self._counts.items())]

    def page(self, found: Mapping[int | None, list[list[str | int]]]) -> str:
        """The rows of each worker in Prometheus' text format; None if there is but one."""
        name = self._metric
        lines = [f"# HELP {name} {self._said}", f"# TYPE {name} counter"]
        for worker, rows in found.items():
            for *values, count in rows:
                labels = dict(zip(self._labels, values, strict=True))
                lines.append(f"{name}{{{labelled(**labels, worker=worker)}}} {count}")
        return "".join(f"{line}\n" for line in lines)


@dataclass
class Tally:
    """Inferences of a model that were asked for by the Open Inference Protocol, in any way."""

    succeeded: int = 0
    succeeded_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    last_ms: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Around one; it fails by an exception."""
        begun = time.monotonic_ns()
        self.last_ms = time.time_ns() // 1_000_000
        try:
            yield
        except BaseException:
            self.failed += 1
            self.failed_ns += time.monotonic_ns() - begun
            raise
        self.succeeded += 1
        self.succeeded_ns += time.monotonic_ns() - begun
