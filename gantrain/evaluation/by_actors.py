"""What is to be measured, opened by any number of processes: the chunks are shared out to actors.

Each chunk goes to the cache as if this process had measured it, so that a command that is killed
goes on, and what is computed of all chunks is the same to the last digit, if actors have as many
threads as this process (their `cpus`): with others torch's convolutions round otherwise.
"""

import atexit
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from platformdirs import user_cache_path

from ganinfer.engines.cluster import Cluster
from ganinfer.engines.ray import spread
from ganinfer.errors import DataError
from ganinfer.progress import Progress
from gantrain.evaluation.asked import Asked
from gantrain.evaluation.measuring import COLUMNS, to_be_seen
from gantrain.evaluation.scores import metric_modules, needs_of
from gantrain.evaluation.targets import Target
from gantrain.metrics._reference import Reference

Chunk = tuple[int, int]  # of which images, and its number


def measure_by(
    cluster: Cluster,
    asked: Asked,
    target: Target,
    reference: Reference,
    metrics: Sequence[str],
    progress: Progress | None,
) -> None:
    """Have the actors of a cluster of Ray see what the cache does not have.

    Target, data and cache lie at the same place on all nodes, and this process computes on the same
    kind of device as they do: what is measured is kept under what it was measured by.

    Args:
        cluster: see there.
        asked: what the actors open.
        target, reference: what it opened as here.
        metrics: that are to be computed.
        progress: called with (what is being done, done, in all).

    Raises:
        DataError: what the actors have measured is not in this process's cache.
        GanError: as of `ganinfer.engines.ray.spread`, and of what they open.
    """
    needs = needs_of(metric_modules(metrics).values())
    columns = [need for need in needs if need in COLUMNS]
    images = to_be_seen(target.source, reference, needs)

    def missing() -> list[Chunk]:
        return [(i, n) for i, some in enumerate(images) for n in some.missing(*columns)]

    home = user_cache_path("ganpipe").parent
    todo = missing()
    made = partial(_see_chunks, asked, needs, columns, home)
    for done, _ in enumerate(spread(made, todo, cluster), start=1):
        if progress:
            progress("measuring by actors", done, len(todo))
    if lost := missing():
        raise DataError(
            f"{asked.cache or home}: {len(lost)} of {len(todo)} chunks that actors measured are not"
            " there; expected a folder that all nodes share (XDG_CACHE_HOME moves it), and actors"
            " that compute as this process does: on the same device, with the same backend"
        )


def _see_chunks(
    asked: Asked, needs: Sequence[str], columns: Sequence[str], home: Path
) -> Callable[[Chunk], None]:
    """What an actor does, with the caches of who asked."""
    os.environ["XDG_CACHE_HOME"] = str(home)
    opened = ExitStack()
    atexit.register(opened.close)
    target, reference = opened.enter_context(asked.opened())
    images = to_be_seen(target.source, reference, needs)

    def see(chunk: Chunk) -> None:
        images[chunk[0]].see(chunk[1], *columns)

    return see
