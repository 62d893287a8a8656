"""gan serve."""

import dataclasses
import re
from contextlib import ExitStack
from pathlib import PurePath
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
        typer.Argument(help="As in digits.gan, hf://owner/name, or name=path.", show_default=False),
    ],
    host: Annotated[str, typer.Option(help="0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for a free one.")] = 8000,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Also over gRPC, there; 0 for a free one.")
    ] = None,
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
    from ganinfer.server.process import Plan, serve_here
    from ganinfer.server.running import address_of, bound_socket, url_of

    places = named_bundles(bundles)
    opening = dataclasses.replace(opening, watch=watch, batch_size=batch_size, max_queue=max_queue)
    plan = Plan(places, opening, serving, max_open)
    with ExitStack() as held:
        bound, rpc_bound = held.enter_context(bound_socket(host, port)), None
        if grpc_port is not None:
            import ganinfer.server.rpc.running  # noqa: F401 - before anything is opened

            rpc_bound = held.enter_context(bound_socket(host, grpc_port, option="--grpc-port"))

        def say_so() -> None:
            if rpc_bound is not None:
                errors.print(f"grpc on {address_of(rpc_bound)}")
            errors.print(f"{url_of(bound)} serves {', '.join(places)}", soft_wrap=True)

        serve_here(plan, bound, rpc_bound, opened=say_so)


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
