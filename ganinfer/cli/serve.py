"""gan serve."""

import dataclasses
import logging
import re
import sys
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
    from ganinfer.sampler import Sampler
    from ganinfer.server.application import Application
    from ganinfer.server.running import address_of, bound_socket, run, url_of

    places = named_bundles(bundles)
    opening = dataclasses.replace(opening, watch=watch, batch_size=batch_size, max_queue=max_queue)
    if serving.access_log:
        log_requests()
    with bound_socket(host, port) as bound, ExitStack() as opened:
        rpc_bound = None
        if grpc_port is not None:
            from ganinfer.server.rpc.running import RpcServer

            rpc_bound = opened.enter_context(bound_socket(host, grpc_port, option="--grpc-port"))
        samplers = {}
        for name, place in places.items():
            samplers[name] = Sampler(place, **vars(opening))
            opened.callback(samplers[name].close, cancel=True, timeout_s=1.0)
        application = Application(samplers, serving)
        rpc = None
        if rpc_bound is not None:
            rpc = RpcServer(application.service, rpc_bound)
            errors.print(f"grpc on {address_of(rpc_bound)}")
        errors.print(f"{url_of(bound)} serves {', '.join(samplers)}", soft_wrap=True)
        run(application, bound, rpc)


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


def log_requests() -> None:
    """The access log goes to stdout, for whoever collects it."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("ganinfer.server.access")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
