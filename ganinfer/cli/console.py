"""Where commands print: a console, one for what went wrong, and bars for long work."""

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
from ganinfer.progress import Progress

# No markup: names in a stranger's manifest are data.
console = Console(highlight=False, markup=False)
errors = Console(highlight=False, markup=False, stderr=True)


@contextmanager
def progress_bars(*amount: ProgressColumn) -> Iterator[Progress]:
    """A callback (what is being done, done, in all) that shows one bar for each thing done.

    amount: columns that say how much is done; by default its share.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *(amount or (TaskProgressColumn(),)),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal
    with Bars(*columns, console=console, transient=True, disable=not shown) as bars:
        tasks: dict[str, TaskID] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:  # what was done before is not part of the speed
                tasks[name] = bars.add_task(name, total=total, completed=done)
            bars.update(tasks[name], completed=done, total=total)

        yield report


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
        raise typer.Exit(130) from None
