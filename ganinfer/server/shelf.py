"""Bundles by the names of their models, of which only so many are open at once."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice

from starlette.exceptions import HTTPException

from ganinfer.bundle.places import Place
from ganinfer.errors import DeadlineExceeded, GanError, RequestError
from ganinfer.sampler import Sampler
from ganinfer.scheduler.opening import Opening
from ganinfer.server.serving import check_name
from ganinfer.server.unopened import Unopened

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0  # before one that did not open is tried again


@dataclass(eq=False)
class _Open:
    """A bundle from when it is asked for until it makes room for another one.

    Attributes:
        sampler: once it is there. opening: until then.
        users: requests that have it, or wait for it.
        unused: is set when there are none.
    """

    sampler: Sampler | None = None
    opening: "asyncio.Task[None] | None" = None
    users: int = 0
    unused: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class _Closed:
    """What is known of a model while it is not open.

    Attributes:
        facts: None if it never was closed.
        pause_s: after it could not be opened the last time; 0 if it could.
        again_at: when that ends, by time.monotonic().
    """

    facts: Unopened | None = None
    pause_s: float = 0.0
    again_at: float = 0.0


class Shelf:
    """Lends samplers; who asks for one that is not open waits until it is.

    Where no more may be open, one makes room that nobody uses, the one that was used longest ago;
    or one that is used, once what it was asked for is answered. All is done on one event loop, but
    for `reload` and `close`.
    """

    def __init__(
        self,
        samplers: Mapping[str, Sampler],
        places: Mapping[str, Place] | None = None,
        opening: Opening | None = None,
    ) -> None:
        """As many as are open now may be open.

        Args:
            samplers: that are open, by the names of their models.
            places: of all bundles, if there are more; these are looked at.
            opening: how bundles are opened.

        Raises:
            RequestError: no model, or a name that no URL can have.
            BundleError: a bundle is missing, cannot be had or is damaged.
        """
        self._places, self._opening = dict(places or {}), opening or Opening()
        names = list(places or samplers)
        if not names:
            raise RequestError("samplers: found none; expected one or more, by name")
        for name in names:
            check_name(name)
        self._closed = {
            name: _Closed(
                None if name in samplers else Unopened.at(self._places[name], self._opening)
            )
            for name in names
        }
        self._open = {name: _Open(sampler) for name, sampler in samplers.items()}
        self._free = 0  # how many more may be open
        self._seeking, self._changed = asyncio.Lock(), asyncio.Event()

    @property
    def names(self) -> list[str]:
        """Of all models."""
        return list(self._closed)

    @property
    def samplers(self) -> dict[str, Sampler]:
        """Those that are open; the one that was used longest ago comes first."""
        found = list(self._open.items())
        return {name: one.sampler for name, one in found if one.sampler is not None}

    def known(self, name: str) -> Sampler | Unopened:
        """The sampler of a model, or what is known of one that is not open; 404 if there is none.

        Whoever wants images asks `lent`.
        """
        self._check(name)
        opened = self._open.get(name)
        if opened is not None and opened.sampler is not None:
            return opened.sampler
        facts = self._closed[name].facts
        assert facts is not None
        return facts

    @property
    def all_known(self) -> dict[str, Sampler | Unopened]:
        """The same of all models, by their names."""
        return {name: self.known(name) for name in self.names}

    def ready(self, name: str) -> bool:
        """Whether a request would be taken now; 404 if there is no such model.

        One that is not open is ready, unless it could not be opened the last time.
        """
        self._check(name)
        opened = self._open.get(name)
        if opened is not None and opened.sampler is not None:
            return opened.sampler.ready
        return self._closed[name].pause_s == 0

    @asynccontextmanager
    async def lent(self, name: str, timeout_s: float) -> AsyncIterator[tuple[Sampler, float]]:
        """The sampler of a model, which stays open as long, and what is left of the time.

        Raises:
            HTTPException: 404, there is no such model; 503, it cannot be opened now.
            DeadlineExceeded: it is not open in time.
        """
        began = time.monotonic()
        opened = self._opened(name)
        opened.users += 1
        try:
            if opened.sampler is None:
                await _until_open(name, opened, timeout_s)
            assert opened.sampler is not None
            if self._open.get(name) is opened:
                self._open[name] = self._open.pop(name)
            yield opened.sampler, max(0.0, timeout_s - (time.monotonic() - began))
        finally:
            opened.users -= 1
            if not opened.users:
                opened.unused.set()

    def _opened(self, name: str) -> _Open:
        """A model that is open, or is being opened from now on."""
        self._check(name)
        if name not in self._open:
            if time.monotonic() < self._closed[name].again_at:
                raise _unavailable(name)
            opened = self._open[name] = _Open()
            opened.opening = asyncio.ensure_future(self._fill(name, opened))
            # Nobody may wait for it any more when it fails.
            opened.opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._open[name]

    async def _fill(self, name: str, opened: _Open) -> None:
        await self._take_place()
        known = self._closed[name]
        try:
            opened.sampler = await Sampler.open(self._places[name], **vars(self._opening))
        except Exception as error:
            known.pause_s = min(max(2 * known.pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            known.again_at = time.monotonic() + known.pause_s
            unforeseen = None if isinstance(error, GanError) else error
            log.error("%s: not opened: %s", name, error, exc_info=unforeseen)
            self._free += 1
            del self._open[name]
            raise _unavailable(name) from None
        finally:
            self._changed.set()
        known.pause_s = 0.0
        log.info("%s: opened", name)

    async def _take_place(self) -> None:
        """Wait until one more may be open, and see to it."""
        async with self._seeking:
            while not self._free:
                if found := self.samplers:
                    # The first that nobody uses, or else the first.
                    await self._close(min(found, key=lambda name: self._open[name].users > 0))
                else:  # others are being opened, and their callers come first
                    self._changed.clear()
                    await self._changed.wait()
            self._free -= 1

    async def _close(self, name: str) -> None:
        """Close a bundle once nobody uses it; who asks for it from now on has it opened anew."""
        opened = self._open.pop(name)
        assert opened.sampler is not None
        self._closed[name].facts = Unopened.of(opened.sampler)
        while opened.users:
            opened.unused.clear()
            await opened.unused.wait()
        await opened.sampler.aclose()
        self._free += 1
        log.info("%s: closed", name)

    def reload(self) -> None:
        """Reload what is open, and look again at what is not; in a thread, since it takes long."""
        for name, known in self._closed.items():
            try:
                if sampler := self.samplers.get(name):
                    changed = sampler.reload()
                else:
                    found = Unopened.at(self._places[name], self._opening)
                    changed = found != known.facts
                    known.facts, known.pause_s, known.again_at = found, 0.0, 0.0
            except GanError as error:
                log.error("%s: not reloaded: %s", name, error)
            else:
                log.info("%s: %s", name, "reloaded" if changed else "unchanged")

    def _check(self, name: str) -> None:
        if name not in self._closed:
            names = ", ".join(sorted(self._closed))
            raise HTTPException(404, f"model {name!r}: there is none; this serves {names}")

    def close(self) -> None:
        """Close what is open, without waiting for long; nobody asks for anything any more."""
        for sampler in self.samplers.values():
            sampler.close(cancel=True, timeout_s=1.0)


def open_shelf(places: Mapping[str, Place], opening: Opening, max_open: int | None) -> Shelf:
    """Open the first bundles, and look at the others.

    Args:
        places: of bundles, by the names of their models.
        opening: how they are opened.
        max_open: at once, at most; None for all.

    Raises:
        GanError: as of `Shelf`, and of `Sampler`.
    """
    samplers: dict[str, Sampler] = {}
    with ExitStack() as undo:
        for name, place in islice(places.items(), max_open):
            samplers[name] = Sampler(place, **vars(opening))
            undo.callback(samplers[name].close)
        shelf = Shelf(samplers, places, opening)
        undo.pop_all()
    return shelf


async def _until_open(name: str, opened: _Open, timeout_s: float) -> None:
    assert opened.opening is not None
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(opened.opening)
    except TimeoutError:
        raise DeadlineExceeded(
            f"model {name!r} is being opened, and was not in time; ask again, or allow more time"
        ) from None


def _unavailable(name: str) -> HTTPException:
    """503; what is the matter may name paths of this machine."""
    return HTTPException(
        503, f"model {name!r} cannot be opened now; whoever runs this server finds why in its log"
    )
