"""Which backend of those that "auto" tries is fastest for a bundle here? Measured beside a program.

A process of its own does it, of the lowest priority, with a thread less than there are, once for a
bundle on a host; it ends with the program or when the Sampler is closed. It runs the bundle itself,
since no model of layers knows what each runtime fuses, and a few seconds of running do. What is
found counts for programs that begin later: see `ganinfer.host.tuned`. GPUs are left alone.
"""

import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ganinfer.errors import BackendUnavailable, GanError
from ganinfer.host.limits import at_most, usable_cpus, usable_memory
from ganinfer.host.mapped import MAP

if TYPE_CHECKING:
    from ganinfer.backends._base import Backend
    from ganinfer.bundle.archive import Bundle
    from ganinfer.drawing.inputs import Inputs

log = logging.getLogger(__name__)

MEASURE = "GANINFER_MEASURE"  # in the environment: 0 for never

_DELAY_S = 2.0  # who draws a few images and ends is not bothered
_MOST_S = 60.0  # of the process, in all
_RUNS_S = 10.0  # of comparing
_BATCHES, _LONG_RUN_S = (64, 8, 1), 0.5  # images a run, fewer where it takes longer
_FEWEST, _MOST_ROUNDS = 5, 30
_TIMED_S = 0.1  # runs that are shorter are timed several together
_WAVERS = 0.15  # ratios whose middle half is wider than that are no result
_FASTER = 1.1  # another than the first has to be so much
_SHARE_OF_MEMORY = 16  # graphs that are larger than a 16th of it are not opened a second time
_PROCESS = "from ganinfer.scheduler.comparing import main; main()"


class Comparison:
    """One that begins soon, and is ended by `stop`."""

    def __init__(self, path: Path, sha256: str, threads: int | None) -> None:
        """Of the bundle at a path, on so many threads, as of `Sampler`."""
        self._asked = json.dumps({"path": str(path), "sha256": sha256, "threads": threads})
        # Garbage may be collected within, and that of a Sampler stops.
        self._lock = threading.RLock()
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        self._timer = threading.Timer(_DELAY_S, self._run)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """End it, if it is not over."""
        self._timer.cancel()
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _run(self) -> None:
        command = [sys.executable, "-P", "-c", _PROCESS, self._asked]
        quiet = subprocess.DEVNULL
        try:
            with self._lock:
                if self._stopped:
                    return
                # It ends when its input does, which this process holds, however this ends.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=quiet,
                    stderr=quiet,
                    env={**os.environ, MEASURE: "0"},
                )
            with self._process as process:
                try:
                    code = process.wait(_MOST_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    code = process.wait()
            log.info("backends were compared: exit code %d; %s", code, self._asked)
        except OSError as error:
            log.info("backends are not compared: %s", error)


def worth_it(bundle: "Bundle", threads: int | None) -> bool:
    """Is there something to compare that was not compared here?"""
    from ganinfer.backends._open import candidates
    from ganinfer.host.machine import gpu_present
    from ganinfer.host.tuned import known

    files = bundle.manifest.files
    size = max(files[graph.path].size for graph in bundle.manifest.graphs)
    weights = sum(entry.size for name, entry in files.items() if name.endswith(".weights"))
    with at_most(threads):
        return (
            os.environ.get(MEASURE) != "0"
            and Path(sys.executable or "").stem.startswith("python")  # no program of its own
            and not getattr(sys, "frozen", False)
            and not gpu_present()
            and len(candidates(bundle, "cpu")) > 1
            and (size + weights) * _SHARE_OF_MEMORY < usable_memory()
            and not known(bundle.sha256)
        )


def main() -> None:
    """What the process does: its argument names bundle, sha256 and threads, as JSON."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    with contextlib.suppress(OSError, AttributeError):
        os.nice(19)
        # By a priority alone it holds up for milliseconds whoever wakes.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # of Linux
    os.environ[MAP] = "0"  # files for all that is tried, and others would wait for this process
    asked = json.loads(sys.argv[1])
    with at_most(asked["threads"]):
        compare(Path(asked["path"]), asked["sha256"])


def compare(path: Path, sha256: str) -> None:
    """Compare the backends of a bundle, and remember the fastest.

    Raises:
        GanError: another process does so, or another bundle lies there.
        OSError: nothing can be kept.
    """
    from ganinfer.bundle.archive import Bundle
    from ganinfer.drawing.inputs import draw_inputs, labels_of
    from ganinfer.drawing.latents import seed_array
    from ganinfer.files import only_writer
    from ganinfer.host.machine import this_host
    from ganinfer.host.tuned import Choice, folder, known, remember

    folder().mkdir(parents=True, exist_ok=True)
    with only_writer(folder()), Bundle(path) as bundle:
        if bundle.sha256 != sha256:
            raise GanError(f"{path}: another bundle than {sha256[:12]} lies there by now")
        if known(sha256):
            return
        host, model = this_host(), bundle.manifest.model
        seeds = seed_array(range(_BATCHES[0]))
        inputs = draw_inputs(model, seeds, labels_of(model, seeds, None))
        with at_most(max(1, usable_cpus() - 1)):
            backends = _opened(bundle)
        found = _fastest(backends, inputs)
        if found is None:
            return
        best, batch_size, rate, compared = found
        choice = Choice(
            backend=best.name,
            device=best.device,
            precision=best.precision,
            images_per_s=rate,
            compared=compared,
            batch_size=batch_size,
            asked=False,
        )
        remember(sha256, host, choice)


def _opened(bundle: "Bundle") -> list["Backend"]:
    """Those that "auto" would open, each in the precision that it would choose."""
    from ganinfer.backends._open import candidates, open_unproven

    opened = []
    for name, place in candidates(bundle, "cpu"):
        with contextlib.suppress(BackendUnavailable):
            opened.append(open_unproven(bundle, name, place, "auto"))
    return opened


def _fastest(
    backends: Sequence["Backend"], inputs: "Inputs"
) -> tuple["Backend", int, float, str] | None:
    """The fastest, images a run, images/s, and compared with the next; None if it wavers.

    All run in turn, so that what else the machine does slows all of them; the times of a round are
    divided by one another.
    """
    batch_size = min(_batch_size(backend, inputs) for backend in backends)
    batch = inputs.rows(0, batch_size)
    slowest = max(_warm_seconds(backend, batch) for backend in backends)
    repeats = max(1, int(_TIMED_S / slowest))
    times: list[list[float]] = []
    end = time.monotonic() + _RUNS_S
    while len(times) < _FEWEST or (time.monotonic() < end and len(times) < _MOST_ROUNDS):
        times.append([_seconds(backend, batch, repeats) for backend in backends])
    first, *others = range(len(backends))
    best, compared = first, ""
    for other in others:
        ratios = [one[first] / one[other] for one in times]  # above 1 it is faster
        low, middle, high = statistics.quantiles(ratios, n=4)
        if high - low > _WAVERS * middle:
            return None
        if middle > _FASTER:
            best = other
        named = backends[first if middle > _FASTER else other]
        gain = middle if middle > _FASTER else 1 / middle
        compared = f"{gain:.1f}x {named.name} {named.precision}"
    seconds = statistics.median(one[best] for one in times)
    return backends[best], batch_size, batch_size / seconds, compared


def _batch_size(backend: "Backend", inputs: "Inputs") -> int:
    """Images a run that does not take long."""
    each = _warm_seconds(backend, inputs.rows(0, 1))
    return next((n for n in _BATCHES if n * each < _LONG_RUN_S), _BATCHES[-1])


def _warm_seconds(backend: "Backend", inputs: "Inputs") -> float:
    """Of a run that is not the first, in which a new size is compiled."""
    backend.run(inputs)
    return _seconds(backend, inputs, repeats=1)


def _seconds(backend: "Backend", inputs: "Inputs", repeats: int) -> float:
    """Of a run."""
    began = time.perf_counter()
    for _ in range(repeats):
        backend.run(inputs)
    return (time.perf_counter() - began) / repeats


def _end_with_input() -> None:
    """The program that started this is gone, or wants no more of it."""
    os.read(0, 1)
    os._exit(1)
