"""The bundle that serves, and how another one takes its place while requests go on."""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ganinfer.bundle.places import Place, located
from ganinfer.errors import BundleError, Closed, GanError, RequestError
from ganinfer.scheduler.opening import Opening
from ganinfer.scheduler.runner import Replaced, Runner, identity, open_runner, whole

if TYPE_CHECKING:
    from ganinfer.drawing.model import Model

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_LOOK_EVERY_S = 1.0
_MOST_BETWEEN_LOOKS_S = 60.0  # at a bundle that cannot be opened
# Of a model: what those who ask for images do not see. Everything else stays as it is.
_FREE: dict[str, Any] = {
    "family": True,
    "macs": True,
    "default_truncation": True,
    "truncation_input": {"statistics"},
}


class Rollout:
    """What a `Sampler` asks for images.

    Attributes:
        runner: that serves now.
        origin: its bundle's name for any other process.
        reload_error: of `watch`, why the bundle that lies there now does not serve, if so.
    """

    def __init__(self, name: Place, opening: Opening) -> None:
        """Open a bundle; errors as of `Sampler`."""
        self.origin, self._place = located(name)
        self._name = _lasting(name, self.origin)
        is_path = self._name is name and self.origin == os.path.abspath(self._place)  # noqa: PTH100
        if opening.watch and not is_path:
            raise RequestError(
                f"watch: expected a path on this machine, found {name!r:.100}; call reload() when"
                " there is another bundle"
            )
        self._seen = identity(self._place)
        self.runner = open_runner(self._place, opening)
        self.reload_error: str | None = None
        self._closed = False
        self._draining: weakref.WeakSet[Runner] = weakref.WeakSet()
        self._start_anew()
        _rollouts.add(self)

    def _start_anew(self) -> None:
        """At first, and in a process that was forked off."""
        self._reloading, self._changing = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        if self.runner.opening.watch and not self._closed:
            # It holds this weakly, so that a sampler that nobody closed may go.
            watch = threading.Thread(
                target=_watch, args=(weakref.ref(self), self._stop), name="ganinfer watch"
            )
            watch.daemon = True
            watch.start()

    def served(self, ask: Callable[[Runner], Result]) -> Result:
        """What the runner that serves now answers.

        Raises:
            Closed: this is closed. Others as of what is asked.
        """
        while True:
            runner = self.runner
            try:
                return ask(runner)
            except Closed:
                if runner is self.runner:
                    raise
            except Replaced:  # in a process that was forked off, before its first request
                if not runner.opening.watch:
                    raise
                self.reload()

    def reload(self, name: Place | None = None) -> bool:
        """See `Sampler.reload`."""
        with self._reloading:
            if self._closed:
                raise self._is_closed()
            old = self.runner
            wanted = self._name if name is None else name
            origin, place = located(wanted)
            wanted = _lasting(wanted, origin)
            seen = identity(place)
            if whole(place, partial(_sha256, place, old.opening)) == old.bundle.sha256:
                self._name, self.origin, self._place, self._seen = wanted, origin, place, seen
                return False
            new = open_runner(place, old.opening)
            try:
                _check_same(old.bundle.manifest.model, new.bundle.manifest.model, place)
                new.warm_up(old.stats.largest_batch)
            except BaseException:
                new.close()
                raise
            if not self._takes_over(new):
                new.close()
                raise self._is_closed()
            self._name, self.origin, self._place, self._seen = wanted, origin, place, seen
            self.reload_error = None
            threading.Thread(target=old.close, name="ganinfer drain", daemon=True).start()
        log.info("%s: %s serves now", place, new.bundle.sha256[:12])
        return True

    def _takes_over(self, new: Runner) -> bool:
        """Serve from it, and let the old one drain; not if this was closed meanwhile."""
        with self._changing:
            if not self._closed:
                self._draining.add(self.runner)
                self.runner = new
            return not self._closed

    def close(self, *, cancel: bool = False, timeout_s: float | None = None) -> None:
        """See `Sampler.close`."""
        self._stop.set()
        with self._changing:
            self._closed = True
            runners = [self.runner, *self._draining]
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for runner in runners:
            rest = None if until is None else max(0.0, until - time.monotonic())
            runner.close(cancel=cancel, timeout_s=rest)

    def __del__(self) -> None:
        if (stop := getattr(self, "_stop", None)) is not None:
            stop.set()

    def look(self) -> bool:
        """Reload if another bundle lies there; whether what lies there serves."""
        if self.reload_error is None and identity(self._place) == self._seen:
            return True
        try:
            self.reload()
        except Closed:
            return True
        except GanError as error:
            if str(error) != self.reload_error:
                log.warning("%s; %s serves on", error, self.runner.bundle.sha256[:12])
            self.reload_error = str(error)
            return False
        self.reload_error = None
        return True

    def _is_closed(self) -> Closed:
        return Closed(f"{self.runner.bundle.path}: this Sampler is closed; open it again")

    def forked(self) -> None:
        """In a process that was forked off; what drains, the parent drains."""
        self._draining = weakref.WeakSet()
        self._start_anew()


def _lasting(name: Place, origin: str) -> str | os.PathLike[str]:
    """A name that may be looked at again: of a content, where it is kept."""
    return name if isinstance(name, str | os.PathLike) else origin


def _watch(held: "weakref.ref[Rollout]", stop: threading.Event) -> None:
    """Look now and then, until the sampler is closed or gone."""
    wait = _LOOK_EVERY_S
    while not stop.wait(wait):
        rollout = held()
        if rollout is None:
            return
        wait = _LOOK_EVERY_S if rollout.look() else min(2 * wait, _MOST_BETWEEN_LOOKS_S)
        del rollout


def _sha256(place: Path, opening: Opening) -> str:
    """Of the bundle that lies there, rightly signed."""
    from ganinfer.bundle.archive import Bundle

    with Bundle(place, public_key=opening.public_key) as found:
        return found.sha256


def _check_same(old: "Model", new: "Model", place: Path) -> None:
    """Refuse another kind of generator.

    Raises:
        BundleError: names what is another, and what to do.
    """
    before, after = (model.model_dump(exclude=_FREE) for model in (old, new))
    changed = [key for key in before if before[key] != after[key]]
    if changed:
        told = "; ".join(f"{key} {before[key]!s:.80} -> {after[key]!s:.80}" for key in changed)
        raise BundleError(
            f"{place}: is of another kind than the bundle that serves ({told}); whoever asks would"
            " see it: open it as a Sampler of its own"
        )


_rollouts: "weakref.WeakSet[Rollout]" = weakref.WeakSet()


def _after_fork() -> None:
    for rollout in list(_rollouts):
        rollout.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
