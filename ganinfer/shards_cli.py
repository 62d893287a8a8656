"""What gan sample -n shows while it writes shards."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.progress import MofNCompleteColumn, ProgressColumn, Task
from rich.text import Text

from ganinfer.cli import console, progress_bars
from ganinfer.progress import Progress


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
