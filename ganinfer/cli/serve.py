"""gan serve."""

import dataclasses
import re
import shlex
from pathlib import Path, PurePath
from typing import Annotated

import typer

from ganinfer.cli.console import errors
from ganinfer.cli.options import expanded
from ganinfer.errors import RequestError
from ganinfer.scheduler.opening import Opening
from ganinfer.server.serving import Serving, check_name


@expanded
def serve(
    *,
    bundles: Annotated[
        list[str],
        typer.Argument(
            help="Bundles to serve, as in digits.gan, hf://owner/name, or name=path.",
            show_default=False,
        ),
    ],
    uds: Annotated[
        Path | None, typer.Option(help="Listen on a Unix socket there, instead of --host, --port.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.")
    ] = 8000,
    grpc_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to serve gRPC on, too; 0 for a free one."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that share the address and the CPU.")
    ] = 1,
    max_open: Annotated[
        int | None,
        typer.Option(min=1, help="Bundles that are open at once, at most; all by default."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Let bundles that are replaced take over.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Images to the device at once, at most.")] = (
        Opening.batch_size
    ),
    max_queue: Annotated[int, typer.Option(help="Requests that may wait for a model.")] = (
        Opening.max_queue
    ),
    serving: Serving,
    opening: Opening,
) -> None:
    """Serve bundles over HTTP: Open Inference Protocol, pictures by URL, OpenAI's images."""
    from ganinfer.server.process import Plan, listening, serve_here
    from ganinfer.server.running import address_of, url_of
    from ganinfer.server.workers import supervise

    places = named_bundles(bundles)
    opening = dataclasses.replace(opening, watch=watch, batch_size=batch_size, max_queue=max_queue)
    plan = Plan(places, opening, serving, max_open)
    with listening(host, port, uds=uds, grpc_port=grpc_port) as sockets:

        def say_so() -> None:
            for rpc in sockets[1:]:
                errors.print(f"grpc on {address_of(rpc)}")
            by = f" by {workers} workers" if workers > 1 else ""
            errors.print(f"{url_of(sockets[0])} serves {', '.join(places)}{by}", soft_wrap=True)
            if uds is not None:
                told = f"curl --unix-socket {shlex.quote(str(uds))} http://localhost/readyz"
                errors.print(told, soft_wrap=True)

        if workers == 1:
            serve_here(plan, *sockets, opened=say_so)
        else:
            supervise(plan, sockets, workers, opened=say_so)


def named_bundles(texts: list[str]) -> dict[str, str]:
    """Paths by names: `name=path`, or the file's name without .gan.

    Raises:
        RequestError: a name is there twice, or is none.
    """
    places: dict[str, str] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not equals or not re.fullmatch(r"[\w.-]+", name):
            place = text
            path = text.partition("@")[0] if text.startswith("hf://") else text
            name = PurePath(path).name.removesuffix(".gan")
        check_name(name)
        if name in places:
            raise RequestError(f"{text}: a model is named {name} already; give name=path")
        places[name] = place
    return places
