"""Processes that serve the same bundles at one address, and who looks after them.

uvicorn has a supervisor, too: it starts what dies again without a pause and without end, waits for
the end of its workers for ever, and starts new ones at SIGHUP, where ours reload.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from ganinfer.errors import ConfigError, GanError
from ganinfer.host.limits import THREADS, usable_cpus
from ganinfer.server.process import Plan, serve_here
from ganinfer.server.siblings import Siblings

log = logging.getLogger(__name__)

_spawn = multiprocessing.get_context("spawn")  # a forked one lacks the threads of backends
_OPENED = ""  # what a worker says once its bundles are open; else why they are not
_MOST_FAILURES = 5  # of each worker, one after the other
_WELL_S = 10.0  # who has served for so long did not fail as it began
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # after the first failure, the second, ...
_GRACE_S = 5.0  # that workers have to end in, beyond what requests have


def supervise(
    plan: Plan, sockets: Sequence[socket.socket], count: int, *, opened: Callable[[], object]
) -> None:
    """Serve in so many processes until SIGTERM or SIGINT; they get SIGTERM and SIGHUP from here.

    Each has its share of the threads that this process may have. One that dies is started again,
    the sooner the longer it was there.

    Args:
        plan: what each of them does.
        sockets: of the addresses that all of them listen on, for HTTP and maybe for gRPC.
        count: how many.
        opened: is called once all of them have opened their bundles.

    Raises:
        GanError: bundles cannot be opened; or workers end again and again, and none is left.
        ConfigError: this is Windows; or for gRPC it is not Linux.
    """
    if sys.platform == "win32":
        raise ConfigError("--workers: not on Windows; start several servers, each on a port")
    if len(sockets) > 1 and sys.platform != "linux":
        raise ConfigError("--grpc-port: goes with --workers on Linux alone")
    with tempfile.TemporaryDirectory(prefix="ganinfer-") as folder:
        supervisor = _Supervisor(plan, sockets, count, Path(folder), opened)
        asyncio.run(supervisor.run())
    if supervisor.failed is not None:
        raise supervisor.failed


@dataclass(eq=False)
class _Worker:
    """A process, and the end of a pipe on which it says how it goes."""

    process: SpawnProcess
    pipe: Connection

    async def says(self) -> str | GanError | None:
        """The next thing that it says; None if it ends without a word."""
        await _readable(self.pipe.fileno())
        try:
            said: str | GanError = self.pipe.recv()
        except (EOFError, OSError):
            return None
        return said

    async def end(self) -> str:
        """Wait for its end; how that was."""
        await _readable(self.process.sentinel)
        self.process.join()
        self.pipe.close()
        code = self.process.exitcode or 0
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def get(self, number: signal.Signals) -> None:
        """It gets a signal, if it is there."""
        if self.process.is_alive():
            assert self.process.pid is not None
            os.kill(self.process.pid, number)


class _Supervisor:
    """Keeps workers, each under its number.

    Attributes:
        failed: why it gave up, if it did.
    """

    def __init__(
        self,
        plan: Plan,
        sockets: Sequence[socket.socket],
        count: int,
        folder: Path,
        opened: Callable[[], object],
    ) -> None:
        self._plan, self._sockets, self._folder = plan, sockets, folder
        self._threads = shares(usable_cpus(), count)
        self._opened = opened
        self._starting, self._serving = set(range(count)), set[int]()  # for the first time; now
        self._failures = [0] * count
        self._told = ""  # of why workers ended, last
        self._workers: dict[int, _Worker] = {}
        self._stopping = asyncio.Event()
        self.failed: GanError | None = None

    async def run(self) -> None:
        """Until all have ended."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        resource_tracker.ensure_running()  # started by the first worker, it would unblock SIGINT
        await asyncio.gather(*map(self._keep, range(len(self._threads))))

    async def _keep(self, number: int) -> None:
        """Have a worker, one after the other, until this stops."""
        while not self._stopping.is_set():
            worker = self._workers[number] = self._start(number)
            said, served_s = await worker.says(), 0.0
            if said == _OPENED:
                since = time.monotonic()
                self._has_opened(number)
                said = await worker.says()
                served_s = time.monotonic() - since
            how = await worker.end()
            self._serving.discard(number)
            if not self._stopping.is_set():
                failures = 1 if served_s > _WELL_S else self._failures[number] + 1
                self._failures[number] = failures
                pause_s = _PAUSES_S[min(failures, len(_PAUSES_S)) - 1]
                self._has_died(number, said, how, pause_s)
                await self._stopped_within(pause_s)

    def _start(self, number: int) -> _Worker:
        pipe, theirs = _spawn.Pipe(duplex=False)
        count, level = len(self._threads), logging.getLogger().level
        siblings = Siblings(self._folder, number, count)
        own = [socket_for_one(bound) for bound in self._sockets]
        process = _spawn.Process(
            target=_work,
            args=(self._plan, own, siblings, number, self._threads[number], theirs, level),
            name=f"ganinfer worker {number}",
            daemon=True,
        )
        # It inherits what is blocked. Ctrl-C reaches it as our SIGTERM; SIGHUP waits for `run`.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGHUP))
            theirs.close()
            for bound in own:
                bound.close()
        return _Worker(process, pipe)

    def _has_opened(self, number: int) -> None:
        self._serving.add(number)
        if self._starting:
            self._starting.discard(number)
            if not self._starting:
                self._opened()

    def _has_died(self, number: int, said: str | GanError | None, how: str, pause_s: float) -> None:
        """Say so, or give up."""
        why = how if said is None else str(said)
        if self._starting and said is not None:  # a mistake of whoever starts this
            self._give_up(said if isinstance(said, GanError) else GanError(said))
        elif not self._serving and min(self._failures) >= _MOST_FAILURES:
            self._give_up(GanError(f"workers end again and again, and none is left: {why}"))
        else:
            told = why if why != self._told else how  # long words once
            log.error("worker %d ended: %s; starting it again in %g s", number, told, pause_s)
        self._told = why

    def _give_up(self, why: GanError) -> None:
        if not self._stopping.is_set():
            self.failed = why
            self._stop()

    async def _stopped_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _stop(self) -> None:
        """Let all workers end; the second time, at once."""
        if not self._stopping.is_set():
            self._stopping.set()
            patience_s = self._plan.serving.drain_s + _GRACE_S
            asyncio.get_running_loop().call_later(patience_s, self._pass_on, signal.SIGKILL)
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers.values():
            worker.get(number)


def socket_for_one(bound: socket.socket) -> socket.socket:
    """A socket of the same address, for one of several processes.

    On Linux one of its own: among such the kernel spreads connections evenly. Of 64 that come at
    once to four processes the busiest gets 20 then, and 40 where they share one socket; and none
    waits for a process that has died.
    """
    if sys.platform != "linux" or bound.family == socket.AF_UNIX:
        return bound.dup()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own = socket.socket(bound.family)
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        own.setsockopt(socket.SOL_SOCKET, option, 1)
    own.bind(bound.getsockname())
    return own


def shares(threads: int, count: int) -> list[int]:
    """Threads of so many processes, as equal as can be; at least one each."""
    return [max(1, (threads + n) // count) for n in range(count)]


async def _readable(file: int) -> None:
    """Wait until there is something to read."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(file, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(file)


def _work(
    plan: Plan,
    sockets: Sequence[socket.socket],
    siblings: Siblings,
    number: int,
    threads: int,
    pipe: Connection,
    level: int,
) -> None:
    """What a worker does, from its beginning to its end."""
    logging.basicConfig(level=level, format=f"worker {number}: %(name)s: %(message)s")
    logging.captureWarnings(True)
    os.environ[THREADS] = str(threads)
    try:
        serve_here(plan, *sockets, opened=lambda: pipe.send(_OPENED), siblings=siblings)
    except GanError as error:
        pipe.send(error)
        sys.exit(1)
    except OSError as error:
        pipe.send(str(error))
        sys.exit(1)
    except Exception:
        pipe.send(traceback.format_exc())
        sys.exit(1)
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        siblings.remove_folder()
