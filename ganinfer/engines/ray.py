"""Work by Ray: actors who each make a worker once, and call it with one item after the other.

Items and results go through Ray's object store and are to be small; what is large goes to a folder
that all nodes share. The item of an actor that dies, or whose node is lost, is done anew by
another: so it must not matter if an item is done twice.
"""

import logging
import os
import pickle
import socket
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from ganinfer.engines.cluster import Cluster, connected
from ganinfer.errors import BackendUnavailable, GanError
from ganinfer.host.limits import THREADS

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_DEATHS = 4  # of actors at one item, which is given up then


def spread(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], cluster: Cluster
) -> Generator[tuple[Item, Result]]:
    """Have items done by the actors of a cluster.

    A program that has called `ray.init` has it done by that cluster, whatever the address.

    Args:
        make: makes a worker, a function of one item, once in each actor. It goes there pickled.
        items: hashable, and none of them None.
        cluster: and what its actors are like.

    Yields:
        Each item and its result, in the order in which they are done.

    Raises:
        MissingExtra: ray is not installed.
        BackendUnavailable: the cluster cannot be reached, has no room for an actor, or several
            actors have died at one item.
        GanError, OSError: what a worker, or making it, raises.
    """
    if not items:
        return
    with connected(cluster) as ray:
        remote = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus)(_Actor)
        start = partial(remote.remote, pickle.dumps(make), Path.cwd(), cluster)
        num_actors = min(len(items), cluster.actors or cluster.room(ray.nodes()))
        yield from _results(ray, start, num_actors, items)


class _Actor:
    """What runs on a node."""

    def __init__(self, make: bytes, folder: Path, cluster: Cluster) -> None:
        os.environ.setdefault(THREADS, str(cluster.cpus))
        with suppress(OSError):  # where it is there, relative paths mean the same
            os.chdir(folder)
        self._make = make
        self._name = f"{socket.gethostname()}: " if cluster.address else ""

    @cached_property
    def _worker(self) -> Callable[[Any], Any]:
        worker: Callable[[Any], Any] = pickle.loads(self._make)()
        return worker

    def work(self, item: Any) -> Any:
        """The result of an item; of None that there is a worker now."""
        try:
            worker = self._worker
            return None if item is None else worker(item)
        except GanError as error:
            raise type(error)(f"{self._name}{error}") from None


def _results(
    ray: Any, start: Callable[[], Any], num_actors: int, items: Sequence[Any]
) -> Iterator[tuple[Any, Any]]:
    """Actors for whom there is no room yet get no item: none waits for them."""
    opening = [start() for _ in range(num_actors)]
    running: dict[Any, tuple[Any, Any]]  # what will be there -> who does it, and the item
    running = {actor.work.remote(None): (actor, None) for actor in opening}
    waiting, idle, deaths = deque(items), list[Any](), Counter[Any]()
    while waiting or any(item is not None for _, item in running.values()):
        while waiting and idle:
            actor, item = idle.pop(), waiting.popleft()
            running[actor.work.remote(item)] = (actor, item)
        (reference,), _ = ray.wait(list(running))
        actor, item = running.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, GanError | OSError) else error) from None
        except ray.exceptions.RayActorError as error:
            deaths[item] += 1
            _check(deaths[item], str(error))
            ray.kill(actor)  # if it is only out of reach
            waiting.extendleft([] if item is None else [item])
            actor = start()
            running[actor.work.remote(None)] = (actor, None)
        else:
            del deaths[item]
            idle.append(actor)
            if item is not None:
                yield item, result


def _check(num_deaths: int, told: str) -> None:
    """Go on after the death of an actor, unless there were several at the same item."""
    lines = told.strip().splitlines()
    log.warning("another actor begins: %s", lines[0])
    if num_deaths == _DEATHS:
        raise BackendUnavailable(
            f"ray: {_DEATHS} actors died at the same work, one after the other; let all nodes have"
            f" ganpipe, and enough memory for it ({lines[-1].strip():.120})"
        ) from None
