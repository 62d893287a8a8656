"""The server as a process: a socket, signals, and an end in bounded time."""

import asyncio
import math
import multiprocessing
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import uvicorn

from ganinfer.errors import ConfigError
from ganinfer.server.application import Application
from ganinfer.server.connections import BoundedProtocol

# uvloop accepts one connection of a socket in each turn, in which it may answer hundreds: who comes
# and goes without a word would keep out those that have something to say.
_ACCEPTED_AT_ONCE = 16


class Beside(Protocol):
    """Another server of the same event loop."""

    async def start(self) -> None:
        """Listen."""

    async def stop(self, grace_s: float) -> None:
        """Take no more requests, and end those that are begun within a time; again with less."""


def bound_socket(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A socket of that address, which does not listen yet.

    Args:
        host, port: the address; 0 for a free port.
        option: that names another port, for the error.

    Raises:
        ConfigError: there is no such address, or somebody has it.
    """
    try:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        bound = socket.socket(family)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"{host}:{port}: {error.strerror}; choose another --host or {option}"
        ) from None
    return bound


def address_of(bound: socket.socket) -> str:
    """As in 127.0.0.1:8000 or [::1]:8000."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(bound: socket.socket) -> str:
    """As a browser takes it; of a Unix socket unix:<path>."""
    if isinstance(path := bound.getsockname(), str):
        return f"unix:{path}"
    return f"http://{address_of(bound)}"


def run(application: Application, bound: socket.socket, beside: Beside | None = None) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads all bundles.

    At SIGTERM the server is ready no more, takes no further connection, and finishes what it has
    begun within `drain_s`; a second one ends it at once.

    Args:
        application: what is asked over HTTP.
        bound: the socket of that.
        beside: a server that begins and ends with it.
    """
    drain_s = application.service.serving.drain_s
    config = uvicorn.Config(
        application,
        lifespan="on",
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(drain_s),
    )
    _Server(config, application, beside).run(sockets=listening(bound))


def listening(bound: socket.socket) -> list[socket.socket]:
    """A socket as often as an event loop is to look at it; the first is it itself.

    Whether a socket blocks is shared by all processes that have it, and Python would let each of
    these block at first. Who then accepts, of several that see the same connection, would wait
    for the next one, and leave all that he has accepted without an answer.
    """
    bound.setblocking(False)
    return [bound, *(bound.dup() for _ in range(_ACCEPTED_AT_ONCE - 1))]


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, application: Application, beside: Beside | None
    ) -> None:
        super().__init__(config)
        self._application, self._beside = application, beside

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._beside is not None:
            await self._beside.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if sockets:
            await self._take_waiting(sockets[0])
        if self._beside is None:
            await super().shutdown(sockets)
            return
        drain_s = 0.0 if self.force_exit else self._application.service.serving.drain_s
        ends = asyncio.ensure_future(self._beside.stop(drain_s))
        await super().shutdown(sockets)
        await ends

    async def _take_waiting(self, bound: socket.socket) -> None:
        """Accept who has connected by now: a socket that closes resets all that wait for it.

        All in one turn of the loop: in each others come.
        """
        loop, config = asyncio.get_running_loop(), self.config
        waiting: list[socket.socket] = []
        with suppress(OSError):  # there are no more, or no more files
            while len(waiting) < config.backlog:
                waiting.append(bound.accept()[0])
        for client in waiting:
            client.setblocking(False)
            await loop.connect_accepted_socket(
                lambda: BoundedProtocol(config, self.server_state, self.lifespan.state), client
            )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Instead of uvicorn's, which raises each signal once more at the end."""
        if sys.platform == "win32":  # whose loops know no signals
            with super().capture_signals():
                yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))  # a worker's waits till now
        if (parent := multiprocessing.parent_process()) is not None:
            loop.add_reader(parent.sentinel, self._orphaned, parent.sentinel)
        yield

    def _orphaned(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self._stop()

    def _stop(self) -> None:
        self._application.service.draining = True
        self.force_exit = self.should_exit
        self.should_exit = True
        if self.force_exit and self._beside is not None:
            self._forced = asyncio.ensure_future(self._beside.stop(0.0))

    def _reload(self) -> None:
        shelf = self._application.service.shelf
        reloading = threading.Thread(target=shelf.reload, name="ganinfer reload")
        reloading.daemon = True  # it holds up no end
        reloading.start()
