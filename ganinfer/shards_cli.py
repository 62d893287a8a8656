"""What gan sample -n shows while it writes shards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ganinfer.cli import console


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f} images/s")


@contextmanager
def shards_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (what is being done, images done, in all); Ctrl-C says how to go on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate())
    disable = not console.is_terminal
    try:
        with Progress(
            *columns, TimeRemainingColumn(), console=console, transient=True, disable=disable
        ) as bars:
            tasks: dict[str, TaskID] = {}

            def report(name: str, done: int, total: int) -> None:
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=total, completed=done)
                bars.update(tasks[name], completed=done)

            yield report
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last whole shard")
        raise typer.Exit(130) from None
