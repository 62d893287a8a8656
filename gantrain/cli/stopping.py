"""What signals ask of a run: to save, to stop, to leave at once."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from ganinfer.cli.console import console, fall_silent
from ganinfer.files import leftovers
from gantrain.runs.checkpoint import checkpoint_files

_STOPS = (signal.SIGINT, signal.SIGTERM)
_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
_SAME_S = 0.1  # a wrapper may pass on a signal that its whole group has got


class _LeftEarlyError(BaseException):
    """A stop came while there was nothing to save."""


class Signals:
    """What has been asked of a run so far; `train` asks for it.

    Attributes:
        stopped_by: number of the signal, once there was one.
    """

    def __init__(self, run: Path) -> None:
        """run: its folder."""
        self._run, self._has_terminal = run, console.is_terminal
        self._trains = self._save = False
        self._heard_at = 0.0
        self.stopped_by: int | None = None

    @property
    def exit_code(self) -> int:
        """Of who was stopped, here or, with several processes, elsewhere."""
        return 128 + (self.stopped_by or signal.SIGTERM)

    def should_stop(self) -> bool:
        """For `train`; who asks is at work, and can save."""
        self._trains = True
        return self.stopped_by is not None

    def should_save(self) -> bool:
        """For `train`; true once."""
        asked, self._save = self._save, False
        return asked

    def listen(self, heard: socket.socket) -> None:
        """Take signals by their numbers, whatever the main thread is at, until nothing comes."""
        with heard:
            while number := heard.recv(1):
                self._take(number[0])

    def interrupt(self, number: int, _frame: object) -> None:
        """In the main thread: it ends at once while there is nothing to save."""
        if number in _STOPS and not self._trains:
            raise _LeftEarlyError(number)

    def _take(self, number: int) -> None:
        if number == _HANGUP:
            self._save = True
            if self._has_terminal and not os.isatty(1):
                fall_silent()
        elif number in _STOPS and self.stopped_by is None:
            self._heard_at, self.stopped_by = time.monotonic(), number
            if self._trains:
                with suppress(OSError):
                    console.print("stopping, saving ... (a second signal leaves at once)")
        elif number in _STOPS and time.monotonic() - self._heard_at > _SAME_S:
            self._leave(number)

    def _leave(self, number: int) -> None:
        """End the process; the main thread may be in the middle of anything."""
        for part in leftovers(self._run / "checkpoints") + leftovers(self._run):
            part.unlink(missing_ok=True)
        if not console.quiet:
            cursor = b"\r\x1b[2K\x1b[?25h" if console.is_terminal else b""
            with suppress(OSError):
                os.write(1, cursor)
                os.write(2, f"left at once; {self.kept}\n".encode())
        os._exit(128 + number)

    @property
    def kept(self) -> str:
        """What the same command goes on from, in words."""
        if files := checkpoint_files(self._run):
            return f"the last good checkpoint is {files[-1]}; the same command goes on from there"
        return "no checkpoint was made yet"


@contextmanager
def stop_signals(run: Path) -> Iterator[Signals]:
    """Hear SIGINT, SIGTERM and SIGHUP for a run; in the main thread.

    The first SIGINT or SIGTERM asks it to save and stop, and ends it at once before the training
    has begun; a second one ends it at once. SIGHUP asks it to save, and is left alone where it is
    ignored already, as under nohup.
    """
    signals, (heard, wakes) = Signals(run), socket.socketpair()
    numbers = list(_STOPS)
    if _HANGUP is not None and signal.getsignal(_HANGUP) is not signal.SIG_IGN:
        numbers.append(_HANGUP)
    wakes.setblocking(False)
    # Python writes each signal's number there as it comes; its handlers wait for the main thread.
    old_wakes = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    old = {number: signal.signal(number, signals.interrupt) for number in numbers}
    threading.Thread(target=signals.listen, args=(heard,), name="signals", daemon=True).start()
    try:
        yield signals
    except _LeftEarlyError as left:
        console.print(f"stopped before the training began; {signals.kept}", soft_wrap=True)
        raise typer.Exit(128 + left.args[0]) from None
    finally:
        for number, handler in old.items():
            # A stopped process is about to end, by its own exit code, which no signal changes.
            ends = signals.stopped_by is not None and number in _STOPS
            signal.signal(number, signal.SIG_IGN if ends else handler)
        signal.set_wakeup_fd(old_wakes)
        wakes.close()
