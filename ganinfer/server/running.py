"""The server as a process: a socket, signals, and an end in bounded time."""

import asyncio
import logging
import math
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import uvicorn

from ganinfer.errors import ConfigError, GanError
from ganinfer.sampler import Sampler
from ganinfer.server.application import Application

log = logging.getLogger(__name__)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket of that address, which does not listen yet.

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
            f"{host}:{port}: {error.strerror}; choose another --host or --port"
        ) from None
    return bound


def url_of(bound: socket.socket) -> str:
    """As a browser takes it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(application: Application, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads all bundles.

    At SIGTERM the server is ready no more, takes no connection, and finishes what it has begun
    within `drain_s`; a second one ends it at once.
    """
    drain_s = application.service.serving.drain_s
    config = uvicorn.Config(
        application,
        lifespan="on",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(drain_s),
    )
    _Server(config, application).run(sockets=[bound])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application

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
        yield

    def _stop(self) -> None:
        self._application.service.draining = True
        self.force_exit = self.should_exit
        self.should_exit = True

    def _reload(self) -> None:
        samplers = self._application.service.samplers
        reloading = threading.Thread(target=_reload, args=(samplers,), name="ganinfer reload")
        reloading.daemon = True  # it holds up no end
        reloading.start()


def _reload(samplers: Mapping[str, Sampler]) -> None:
    for name, sampler in samplers.items():
        try:
            changed = sampler.reload()
        except GanError as error:
            log.error("%s: not reloaded: %s", name, error)
        else:
            log.info("%s: %s", name, "reloaded" if changed else "unchanged")
