"""What whoever runs the server asks: /livez, /readyz, /metrics."""

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ganinfer import prometheus
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
    """Of all samplers and of requests, of all workers, in Prometheus' text format."""
    service = service_of(request)
    found = await service.all_figures()
    text = prometheus.page(
        (prometheus.labelled(bundle=sha256[:12], worker=worker), stats)
        for worker, figures in found.items()
        for sha256, stats in figures["samplers"]
    )
    for door, counts in (("http", service.counts), ("grpc", service.grpc_counts)):
        text += counts.page({worker: figures[door] for worker, figures in found.items()})
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


ROUTES = [
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
]
