"""A cluster of Ray: what is asked of it, how many actors it has room for, and how it is reached."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from ganinfer.drawing.arguments import checked_integer
from ganinfer.errors import BackendUnavailable, RequestError, missing_extra
from ganinfer.host.limits import usable_cpus
from ganinfer.options import Option

_REACH_S = 5.0

# Ray reports nothing. Of a cluster that starts here all sockets are of the loopback interface: that
# is what the long name stands for (an address of it Ray takes for the host's). A token of its own,
# which is kept in no file, shuts out this machine's other users.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
_LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where actors run, and what each of them takes.

    Attributes:
        address: "auto" for the cluster that this machine is of, or the host:port of its head; None
            starts one here, for as long as the work takes, which listens on this machine alone.
        actors: how many; None for as many as the nodes have room for, and no more than items.
        cpus, gpus: of an actor; gpus may be a part of one, as in 0.5.

    Raises:
        RequestError: an actor that cannot be.
    """

    address: Annotated[
        str | None,
        Option(
            help="With --engine: the cluster's address, auto or host:port; else one starts here."
        ),
    ] = None
    actors: Annotated[
        int | None,
        Option(help="With --engine: number of actors; as many as there is room for by default."),
    ] = None
    cpus: Annotated[int, Option(help="With --engine: CPUs of each actor.")] = 1
    gpus: Annotated[float, Option(help="With --engine: GPUs of each actor, as in 1 or 0.5.")] = 0.0

    def __post_init__(self) -> None:
        if self.actors is not None:
            checked_integer("actors", self.actors, least=1)
        checked_integer("cpus", self.cpus, least=1)
        if not 0 <= self.gpus < float("inf"):
            raise RequestError(f"gpus: found {self.gpus!r}; expected a number, 0 or more")

    def room(self, nodes: list[dict[str, Any]]) -> int:
        """How many actors there may be, node by node.

        Args:
            nodes: as `ray.nodes` tells them.

        Raises:
            BackendUnavailable: none.
        """
        wanted = {"CPU": float(self.cpus), "GPU": self.gpus}
        found = [node["Resources"] for node in nodes if node["Alive"]]
        room = sum(min(int(has.get(k, 0.0) / v) for k, v in wanted.items() if v) for has in found)
        if not room:
            told = ", ".join(f"{n.get('CPU', 0):g} and {n.get('GPU', 0):g}" for n in found)
            raise BackendUnavailable(
                f"ray: an actor takes {self.cpus} CPUs and {self.gpus:g} GPUs, and the nodes have"
                f" {told}; give it less by --cpus and --gpus or, if the cluster grows when it is"
                " asked to, say how many there shall be by --actors"
            )
        return room


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Ray, which the program has initialised itself, or which is there while this lasts.

    Raises:
        MissingExtra, BackendUnavailable: see `ganinfer.engines.ray.spread`.
    """
    address = cluster.address
    local = {**_LOCAL, "RAY_AUTH_TOKEN": _token()} if address is None else {}
    with _environment({**_QUIET, **local}):
        try:
            import ray
            import ray.exceptions
        except ModuleNotFoundError as error:
            raise missing_extra("ray", error) from None
        if ray.is_initialized():
            yield ray
            return
        if address not in (None, "auto"):
            _reach(address)
        options = {"num_cpus": usable_cpus(), "include_dashboard": False} if local else {}
        try:
            ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **options)
        except (Exception, SystemExit) as error:  # Ray raises many kinds, and Exception itself
            told = (str(error).splitlines() or ["no reason is told"])[0]
            raise BackendUnavailable(f"ray: {address or 'a cluster here'}: {told}") from None
        try:
            yield ray
        finally:
            ray.shutdown()


@cache
def _token() -> str:
    """One for all clusters of this process, since Ray reads it once."""
    return secrets.token_hex(32)


def _reach(address: str) -> None:
    """Refuse an address where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except (OSError, ValueError) as error:
        raise BackendUnavailable(
            f"ray: {address}: no cluster can be reached there ({error}); expected auto, or the"
            " host:port that `ray start --head` tells"
        ) from None


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Within it these are set, unless they were."""
    added = {name: text for name, text in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
