"""What a Sampler has done: counts since it was opened, and times of the last thousands."""

import threading
from collections import deque
from typing import Any

import numpy as np

_KEPT = 4096  # times that percentiles are taken of


class Stats:
    """Told of every batch and request; read at any time, by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(("requests", "images", "batches", "padded", "failed"), 0)
        self._seconds = dict.fromkeys(("latents_s", "device_s"), 0.0)
        self._times: dict[str, deque[float]] = {
            name: deque(maxlen=_KEPT) for name in ("queue_ms", "request_ms", "device_ms")
        }

    def batch(self, *, images: int, size: int, draw_s: float, run_s: float) -> None:
        """A batch of so many images was run in a size, after its latents were drawn."""
        with self._lock:
            self._counts["batches"] += 1
            self._counts["images"] += images
            self._counts["padded"] += size - images
            self._seconds["latents_s"] += draw_s
            self._seconds["device_s"] += run_s
            self._times["device_ms"].append(1000 * run_s)

    def request(self, waited_s: float, served_s: float) -> None:
        """A request was answered; it waited for its last batch, which took so long."""
        with self._lock:
            self._counts["requests"] += 1
            self._times["queue_ms"].append(1000 * waited_s)
            self._times["request_ms"].append(1000 * (waited_s + served_s))

    def failed(self) -> None:
        """A batch failed."""
        with self._lock:
            self._counts["failed"] += 1

    def read(self) -> dict[str, Any]:
        """Counts, seconds in all, and p50, p90 and p99 of the last times, by name.

        fill: share of the images that were run that somebody had asked for.
        """
        with self._lock:
            found: dict[str, Any] = {**self._counts, **self._seconds}
            times = {name: np.array(kept) for name, kept in self._times.items()}
        run = found["images"] + found["padded"]
        found["fill"] = found["images"] / run if run else 1.0
        for name, kept in times.items():
            values = np.percentile(kept, (50, 90, 99)) if len(kept) else np.zeros(3)
            found[name] = dict(zip(("p50", "p90", "p99"), values.tolist(), strict=True))
        return found
