"""Where commands print: a console, one for what went wrong, and bars for long work."""

import importlib.util
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from ganinfer.bundle.places import local_path
from ganinfer.errors import Ending
from ganinfer.progress import Progress

# No markup, no emoji: names in a stranger's manifest are data, and nets:five: is a module.
console = Console(highlight=False, markup=False, emoji=False)
errors = Console(highlight=False, markup=False, emoji=False, stderr=True)

_GAP_S, _LONGEST_GAP_S = 10.0, 600.0  # between two lines of a log


@contextmanager
def progress_bars(*amount: ProgressColumn) -> Iterator[Progress]:
    """A callback (what is being done, done, in all) that shows one bar for each thing done.

    amount: columns that say how much is done; by default its share.
    """
    if not draws_bars():
        with _progress_lines() as report:
            yield report
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *(amount or (TaskProgressColumn(),)),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:  # what was done before is not part of the speed
                tasks[name] = bars.add_task(name, total=total, completed=done)
            bars.update(tasks[name], completed=done, total=total)

        yield report


@contextmanager
def step_by_step(words: str) -> Iterator[Progress]:
    """A callback (what is being done, steps done, in all) of steps that all take their time."""
    if not draws_bars():
        with _progress_lines() as report:
            yield report
        return
    with console.status(words) as status:
        yield lambda name, done, total: status.update(f"{name} ({done + 1} of {total})")


def fall_silent() -> None:
    """Who was shown all this is gone, a terminal or a pipe: from now on it goes nowhere."""
    console.quiet = errors.quiet = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if not stat.S_ISREG(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)  # what is still to be flushed would fail, too


def draws_bars() -> bool:
    """Is there a terminal, or a notebook that can draw them?"""
    widgets = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    return console.is_terminal or widgets


@contextmanager
def _progress_lines() -> Iterator[Progress]:
    """The same for a pipe or a file: a line on stderr now and then, whatever the work is at."""
    last, over, pace = "", threading.Event(), Pace()

    def report(name: str, done: int, total: int) -> None:
        nonlocal last
        last = f"{name}: {done:,} of {total:,}"

    def speak() -> None:
        while not over.wait(pace.next_in()):
            if last and pace.due():
                errors.print(f"{last}, after {spoken(pace.elapsed)}", soft_wrap=True)

    speaker = threading.Thread(target=speak, name="progress", daemon=True)
    speaker.start()
    try:
        yield report
    finally:
        over.set()
        speaker.join()


class Pace:
    """When a log gets its next line: after 10 s, and more seldom as time goes on."""

    def __init__(self) -> None:
        """The clock starts; nothing was said yet."""
        self._began = self._said = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def next_in(self) -> float:
        """Seconds until the next line: a twentieth of the time that has passed, within limits."""
        gap = min(_LONGEST_GAP_S, max(_GAP_S, self.elapsed / 20))
        return max(0.0, self._said + gap - time.monotonic())

    def due(self) -> bool:
        """Is it time? If so, the next line is as far again."""
        if self.next_in() > 0:
            return False
        self._said = time.monotonic()
        return True


def spoken(seconds: float) -> str:
    """A time in words: 40 s, 12 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def fetched_path(name: str) -> Path:
    """Where a bundle lies on this host; a download has a bar. For Typer, as a parser."""
    with progress_bars() as report:
        return local_path(name, progress=report)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} images/s")


@contextmanager
def shards_bar() -> Iterator[Progress]:
    """A callback (what is being done, images done, in all); Ctrl-C says how to go on."""
    try:
        with progress_bars(MofNCompleteColumn(), _Rate()) as report:
            yield report
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last whole shard")
        raise typer.Exit(Ending.INTERRUPTED) from None
