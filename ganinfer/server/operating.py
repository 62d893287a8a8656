"""What whoever runs the server asks: /livez, /readyz, /metrics."""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ganinfer.prometheus import prometheus
from ganinfer.server.service import service_of


async def livez(request: Request) -> Response:
    """200 while this process can serve."""
    live = service_of(request).live
    return JSONResponse({"live": live}, 200 if live else 503)


async def readyz(request: Request) -> Response:
    """200 while requests should come here."""
    service = service_of(request)
    models = {name: service.ready_for(name) for name in service.shelf.names}
    return JSONResponse({"ready": service.ready, "models": models}, 200 if service.ready else 503)


async def metrics(request: Request) -> Response:
    """Of all samplers, and of requests, in Prometheus' text format."""
    service = service_of(request)
    counts = [service.counts, service.grpc_counts]
    samplers = service.shelf.samplers.values()
    text = prometheus(*samplers) + "".join(c.prometheus() for c in counts)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


ROUTES = [
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
]
