"""The Open Inference Protocol, version 2, over HTTP: what clients of Triton and KServe speak.

N images, Z latent, K classes. Inputs: seed UINT64 (N, 1) or (N,), or z FP32 (N, Z); label INT64 or
BYTES, class names, of the same shape as seed; truncation FP64, one value. Outputs: images UINT8
(N, H, W, C), which is the default, and png BYTES (N,).
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ganinfer.server.bodies import read_body
from ganinfer.server.describing import (
    VERSION,
    Known,
    configured,
    described,
    described_server,
    figures,
    index,
    versioned,
)
from ganinfer.server.inference import (
    aside,
    drawing,
    is_small,
    outputs_of,
    timeout_of,
    wanted_outputs,
)
from ganinfer.server.service import service_of
from ganinfer.server.tensors import LARGE, pack_answer, read_request


async def server(_: Request) -> Response:
    """The server's metadata."""
    return JSONResponse(described_server())


async def live(request: Request) -> Response:
    """200 while this process can serve."""
    return _state("live", service_of(request).live)


async def ready(request: Request) -> Response:
    """200 while requests should come here."""
    return _state("ready", service_of(request).ready)


async def model_ready(request: Request) -> Response:
    """The same for one model."""
    name, _ = _asked(request)
    return _state("ready", service_of(request).ready_for(name))


async def model(request: Request) -> Response:
    """A model's metadata."""
    return JSONResponse(described(*_asked(request)))


async def config(request: Request) -> Response:
    """A model's configuration."""
    return JSONResponse(configured(service_of(request), *_asked(request)))


async def stats(request: Request) -> Response:
    """A model's statistics."""
    return JSONResponse({"model_stats": [figures(service_of(request), *_asked(request))]})


async def all_stats(request: Request) -> Response:
    """Those of all models."""
    service = service_of(request)
    found = [figures(service, *item) for item in service.shelf.all_known.items()]
    return JSONResponse({"model_stats": found})


async def repository(request: Request) -> Response:
    """The index of models."""
    return JSONResponse(index(service_of(request)))


async def infer(request: Request) -> Response:
    """Images."""
    service, (name, _) = service_of(request), _asked(request)
    with service.tallies[name].counted():
        body = await read_body(request, service.serving)
        header_length = request.headers.get("inference-header-content-length")
        asked, tensors = await aside(len(body) <= LARGE, read_request, body, header_length)
        longest_s = timeout_of(asked, service.serving.timeout_s)
        async with service.shelf.lent(name, longest_s) as (sampler, rest_s):
            wanted = wanted_outputs(service, sampler, asked, tensors)
            work = drawing(service, sampler, asked, tensors, longest_s=rest_s)
            images = await service.answered(request, work)
        told = {"model_name": name, "model_version": VERSION}
        if asked.id is not None:
            told["id"] = asked.id

        def packed() -> tuple[bytes, int | None]:
            return pack_answer(told, outputs_of(wanted, images))

        content, head = await aside(is_small(wanted, images), packed)
    if head is None:
        return Response(content, media_type="application/json")
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"Inference-Header-Content-Length": str(head)},
    )


_OF_MODELS = [
    ("/infer", infer, "POST"),
    ("", model, "GET"),
    ("/ready", model_ready, "GET"),
    ("/config", config, "GET"),
    ("/stats", stats, "GET"),
]
# Those of a model also under its version. They are tried in this order.
ROUTES = [
    Route("/v2/models/stats", all_stats, methods=["GET"]),
    *(
        Route(f"/v2/models/{{model}}{version}{path}", endpoint, methods=[method])
        for version in ("", "/versions/{version}")
        for path, endpoint, method in _OF_MODELS
    ),
    Route("/v2", server, methods=["GET"]),
    Route("/v2/health/live", live, methods=["GET"]),
    Route("/v2/health/ready", ready, methods=["GET"]),
    Route("/v2/repository/index", repository, methods=["POST"]),
]


def _asked(request: Request) -> tuple[str, Known]:
    """The model that a path names."""
    name = request.path_params["model"]
    version = request.path_params.get("version", VERSION)
    return name, versioned(service_of(request), name, version)


def _state(name: str, good: bool) -> Response:
    return JSONResponse({name: good}, 200 if good else 503)
