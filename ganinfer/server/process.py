"""A process of the server: it opens its bundles, serves them, and closes them."""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ganinfer.host.tuned import belong_to, session
from ganinfer.scheduler.opening import Opening
from ganinfer.server.access import log_to_stdout
from ganinfer.server.application import Application
from ganinfer.server.running import bound_socket, run
from ganinfer.server.serving import Serving
from ganinfer.server.shelf import open_shelf
from ganinfer.server.siblings import Siblings
from ganinfer.server.unix_socket import unix_socket


@dataclass(frozen=True)
class Plan:
    """What each process of a server does.

    Attributes:
        places: of bundles, by the names of their models.
        opening: how they are opened. max_open: at once, at most; None for all.
        serving: limits, keys and so on.
        session: when it began, the same for all, so that they choose the same backends.
    """

    places: Mapping[str, str]
    opening: Opening
    serving: Serving
    max_open: int | None = None
    session: float = field(default_factory=session)


@contextmanager
def listening(
    host: str, port: int, *, uds: Path | None = None, grpc_port: int | None = None
) -> Iterator[list[socket.socket]]:
    """Sockets for HTTP and, if there is a port for it, for gRPC.

    Args:
        host, port: the address; 0 for a free port.
        uds: a path to listen at instead.
        grpc_port: of the same host.

    Raises:
        ConfigError: one cannot be had; see `bound_socket` and `unix_socket`.
    """
    with ExitStack() as held:
        http = bound_socket(host, port) if uds is None else unix_socket(uds)
        sockets = [held.enter_context(http)]
        if grpc_port is not None:
            import ganinfer.server.rpc.running  # noqa: F401 - what it needs is missed now

            rpc = bound_socket(host, grpc_port, option="--grpc-port")
            sockets.append(held.enter_context(rpc))
        yield sockets


def serve_here(
    plan: Plan,
    bound: socket.socket,
    rpc_bound: socket.socket | None = None,
    *,
    opened: Callable[[], object],
    siblings: Siblings | None = None,
) -> None:
    """Serve in this process; see `run`.

    Args:
        plan: what is served.
        bound, rpc_bound: sockets of HTTP and of gRPC, if there is to be any.
        opened: is called once the bundles are open.
        siblings: other processes that do the same at the same addresses.

    Raises:
        GanError: a bundle cannot be opened, or the file of keys cannot be used.
    """
    if plan.serving.access_log:
        log_to_stdout()
    belong_to(plan.session)
    shelf = open_shelf(plan.places, plan.opening, plan.max_open)
    try:
        application = Application(shelf, plan.serving, siblings)
        rpc = None
        if rpc_bound is not None:
            from ganinfer.server.rpc.running import RpcServer

            rpc = RpcServer(application.service, rpc_bound, shared=siblings is not None)
        opened()
        run(application, bound, rpc)
    finally:
        shelf.close()
