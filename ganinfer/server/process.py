"""A process of the server: it opens its bundles, serves them, and closes them."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ganinfer.scheduler.opening import Opening
from ganinfer.server.access import log_to_stdout
from ganinfer.server.application import Application
from ganinfer.server.running import run
from ganinfer.server.serving import Serving
from ganinfer.server.shelf import open_shelf


@dataclass(frozen=True)
class Plan:
    """What a server does.

    Attributes:
        places: of bundles, by the names of their models.
        opening: how they are opened. max_open: at once, at most; None for all.
        serving: limits, keys and so on.
    """

    places: Mapping[str, str]
    opening: Opening
    serving: Serving
    max_open: int | None = None


def serve_here(
    plan: Plan,
    bound: socket.socket,
    rpc_bound: socket.socket | None = None,
    *,
    opened: Callable[[], object],
) -> None:
    """Serve in this process; see `run`.

    Args:
        plan: what is served.
        bound, rpc_bound: sockets of HTTP and of gRPC, if there is to be any.
        opened: is called once the bundles are open.

    Raises:
        GanError: a bundle cannot be opened, or the file of keys cannot be used.
    """
    if plan.serving.access_log:
        log_to_stdout()
    shelf = open_shelf(plan.places, plan.opening, plan.max_open)
    try:
        application = Application(shelf, plan.serving)
        rpc = None
        if rpc_bound is not None:
            from ganinfer.server.rpc.running import RpcServer

            rpc = RpcServer(application.service, rpc_bound)
        opened()
        run(application, bound, rpc)
    finally:
        shelf.close()
