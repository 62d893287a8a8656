"""How a run shows itself while it trains: a bar, or lines in a log."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from ganinfer.cli.console import Pace, console, draws_bars, fall_silent, spoken

if TYPE_CHECKING:
    from gantrain.training.record import Progress as TrainingProgress


@contextmanager
def training_bar(first: str = "") -> Iterator[Callable[["TrainingProgress"], None]]:
    """A callback for `train`: a bar on a terminal, a line now and then elsewhere.

    first: words above it all, once the run has begun.
    """
    columns = (
        BarColumn(12),  # what is typed meanwhile, as ^C, has room behind it all
        TextColumn("{task.fields[words]}", table_column=Column(no_wrap=True)),
    )
    shown, pace = draws_bars(), Pace()
    with Progress(*columns, console=console, disable=not shown) as bar:
        task = bar.add_task("training", total=None, words="starting")
        begun, above = False, [first] if first else []

        def show(progress: "TrainingProgress") -> None:
            nonlocal begun
            for note in (*above, *progress.notes):
                console.print(note, soft_wrap=True)
            above.clear()
            for warning in progress.warnings:
                seen = f"{progress.images_seen / 1000:.0f} kimg"
                console.print(f"at {seen}: {warning}", style="yellow", soft_wrap=True)
            if not progress.images_per_s and not progress.doing:
                return
            words = _words(progress)
            bar.update(
                task, completed=progress.images_seen, total=progress.total_images, words=words
            )
            finished = progress.images_seen >= progress.total_images and progress.is_record
            if not shown and (pace.due() or finished or not begun):
                console.print(words, soft_wrap=True)
            begun = True

        def report(progress: "TrainingProgress") -> None:
            try:
                show(progress)
            except OSError:  # nobody looks any more, and that ends no run
                fall_silent()

        try:
            yield report
        finally:
            if shown and not draws_bars():  # it is gone: the bar's last words would fail
                fall_silent()


def _words(progress: "TrainingProgress") -> str:
    """As in "12,800/600,000 images  530/s  18 min left  loss D 0.69 G 1.20  FID 12.3"."""
    words = [f"{progress.images_seen:,}/{progress.total_images:,} images"]
    if progress.doing:
        return f"{words[0]}  {progress.doing}"
    words.append(f"{progress.images_per_s:,.0f}/s")
    if progress.seconds_left:
        words.append(f"{spoken(progress.seconds_left)} left")
    losses = [
        f"{name} {progress.stats[key]:.2f}"
        for name, key in (("D", "loss_d"), ("G", "loss_g"))
        if key in progress.stats
    ]
    if losses:
        words.append(f"loss {' '.join(losses)}")
    if progress.fid is not None:
        words.append(f"FID {progress.fid:.1f}")
    return "  ".join(words)
