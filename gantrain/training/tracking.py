"""The trackers of a run: each is told everything, and none can stop it."""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ganinfer.errors import missing_extra
from ganinfer.lookup import find_part
from gantrain.game.config import Config
from gantrain.game.kinds import TRACKER
from gantrain.trackers._base import Ending, Tracker

log = logging.getLogger(__name__)


def find_trackers(config: Config) -> dict[str, type[Tracker]]:
    """Those that [train] trackers names.

    Raises:
        ConfigError: there is none of that name.
        MissingExtra: what one needs is not installed.
    """
    found: dict[str, type[Tracker]] = {}
    for name in config.train.trackers:
        part = find_part(TRACKER, name, where=f"{config.where} [train] trackers").Tracker
        # Not imported yet: a tracker may have to say something to its package before that.
        if part.needs and importlib.util.find_spec(part.needs) is None:
            raise missing_extra(part.needs)
        found[name] = part
    return found


class Trackers:
    """All of them. One that fails is left out from then on, and `failures` says so.

    Attributes:
        failures: in words, until somebody takes them.
    """

    def __init__(self, kinds: dict[str, type[Tracker]], run: Path, config: dict[str, Any]) -> None:
        """Of a run and its recipe, as nested sections; `open` opens them."""
        self._kinds, self._run, self._config = kinds, run, config
        self._open: dict[str, Tracker] = {}
        self._ending: Ending = "failed"
        self.failures: list[str] = []

    def open(self, images_seen: int) -> None:
        """Begin, or go on from there."""
        for name, kind in self._kinds.items():
            with self._guard(name):
                self._open[name] = kind(self._run, self._config, images_seen)

    def tell(self, call: Callable[[Tracker], None]) -> None:
        """Call every one that has not failed yet."""
        for name, tracker in list(self._open.items()):
            with self._guard(name):
                call(tracker)

    def ends(self, ending: Ending) -> None:
        """How the run ends, if nothing goes wrong any more."""
        self._ending = ending

    @contextmanager
    def _guard(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # it is a stranger's code, and the run is worth more
            self._open.pop(name, None)
            said = (str(error).splitlines() or [""])[0]
            reason = f"{type(error).__name__}: {said}"
            self.failures.append(f"{name} has failed, and the run goes on without it: {reason}")
            log.warning("%s: %s", self._run, self.failures[-1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tell(lambda tracker: tracker.close(self._ending))
