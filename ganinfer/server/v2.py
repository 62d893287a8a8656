"""The Open Inference Protocol, version 2, over HTTP: what clients of Triton and KServe speak.

N images, Z latent, K classes. Inputs: seed UINT64 (N, 1) or (N,), or z FP32 (N, Z); label INT64 or
BYTES, class names, of the same shape as seed; truncation FP64, one value. Outputs: images UINT8
(N, H, W, C), which is the default, and png BYTES (N,).
"""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ganinfer.sampler import Sampler
from ganinfer.server.bodies import read_body
from ganinfer.server.inference import drawing, packed, wanted_outputs
from ganinfer.server.service import Service, service_of
from ganinfer.server.tensors import read_request

VERSION = "1"  # of every model
_LARGE = 1 << 18  # bytes; more are read or packed beside the event loop


@dataclass
class Tally:
    """Inferences of a model that were asked for here."""

    succeeded: int = 0
    succeeded_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    last_ms: int = 0


class V2:
    """The endpoints, and what they count."""

    def __init__(self) -> None:
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)

    @property
    def routes(self) -> list[Route]:
        """Of all endpoints; those of a model also under its version."""
        of_models = [
            ("", self.model, "GET"),
            ("/ready", self.model_ready, "GET"),
            ("/config", self.config, "GET"),
            ("/stats", self.stats, "GET"),
            ("/infer", self.infer, "POST"),
        ]
        return [
            Route("/v2", self.server, methods=["GET"]),
            Route("/v2/health/live", self.live, methods=["GET"]),
            Route("/v2/health/ready", self.ready, methods=["GET"]),
            Route("/v2/models/stats", self.all_stats, methods=["GET"]),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            *(
                Route(f"/v2/models/{{model}}{version}{path}", endpoint, methods=[method])
                for version in ("", "/versions/{version}")
                for path, endpoint, method in of_models
            ),
        ]

    async def server(self, _: Request) -> Response:
        from ganinfer import __version__

        extensions = ["binary_tensor_data", "model_configuration", "statistics"]
        return JSONResponse({"name": "ganinfer", "version": __version__, "extensions": extensions})

    async def live(self, request: Request) -> Response:
        return _state("live", service_of(request).live)

    async def ready(self, request: Request) -> Response:
        return _state("ready", service_of(request).ready)

    async def model_ready(self, request: Request) -> Response:
        name, _ = _asked(request)
        return _state("ready", service_of(request).ready_for(name))

    async def model(self, request: Request) -> Response:
        name, sampler = _asked(request)
        inputs, outputs = _tensors(sampler)
        return JSONResponse(
            {
                "name": name,
                "versions": [VERSION],
                "platform": "ganinfer",
                "inputs": [_described(tensor) for tensor in inputs],
                "outputs": [_described(tensor) for tensor in outputs],
            }
        )

    async def config(self, request: Request) -> Response:
        name, sampler = _asked(request)
        inputs, outputs = _tensors(sampler)
        known = {"bundle_sha256": sampler.sha256, "classes": ",".join(sampler.classes)}
        return JSONResponse(
            {
                "name": name,
                "platform": "ganinfer",
                "backend": "ganinfer",
                "max_batch_size": service_of(request).serving.max_images,
                "input": [{**_configured(t), "optional": True} for t in inputs],
                "output": [_configured(tensor) for tensor in outputs],
                "parameters": {key: {"string_value": value} for key, value in known.items()},
            }
        )

    async def stats(self, request: Request) -> Response:
        name, sampler = _asked(request)
        return JSONResponse({"model_stats": [self._figures(name, sampler)]})

    async def all_stats(self, request: Request) -> Response:
        samplers = service_of(request).samplers
        return JSONResponse({"model_stats": [self._figures(*item) for item in samplers.items()]})

    def _figures(self, name: str, sampler: Sampler) -> dict[str, Any]:
        """Successes and failures of this door; batches are those of everybody who asks."""
        tally, stats = self._tallies[name], sampler.stats

        def duration(count: int, ns: float) -> dict[str, int]:
            return {"count": count, "ns": int(ns)}

        return {
            "name": name,
            "version": VERSION,
            "last_inference": tally.last_ms,
            "inference_count": stats["images"],
            "execution_count": stats["batches"],
            "inference_stats": {
                "success": duration(tally.succeeded, tally.succeeded_ns),
                "fail": duration(tally.failed, tally.failed_ns),
                "compute_input": duration(stats["batches"], 1e9 * stats["latents_s"]),
                "compute_infer": duration(stats["batches"], 1e9 * stats["device_s"]),
            },
            "batch_stats": [],
        }

    async def index(self, request: Request) -> Response:
        service = service_of(request)
        models = []
        for name in service.samplers:
            ready = service.ready_for(name)
            state, reason = ("READY", "") if ready else ("UNAVAILABLE", "not ready now")
            models.append({"name": name, "version": VERSION, "state": state, "reason": reason})
        return JSONResponse(models)

    async def infer(self, request: Request) -> Response:
        name, sampler = _asked(request)
        tally, begun = self._tallies[name], time.monotonic_ns()
        tally.last_ms = time.time_ns() // 1_000_000
        try:
            answer = await _infer(service_of(request), request, name, sampler)
        except BaseException:
            tally.failed += 1
            tally.failed_ns += time.monotonic_ns() - begun
            raise
        tally.succeeded += 1
        tally.succeeded_ns += time.monotonic_ns() - begun
        return answer


async def _infer(service: Service, request: Request, name: str, sampler: Sampler) -> Response:
    body = await read_body(request, service.serving)
    header_length = request.headers.get("inference-header-content-length")
    if len(body) <= _LARGE:
        asked, tensors = read_request(body, header_length)
    else:
        asked, tensors = await asyncio.to_thread(read_request, body, header_length)
    wanted = wanted_outputs(service, sampler, asked, tensors)
    images = await service.answered(request, drawing(service, sampler, asked, tensors))
    told = {"model_name": name, "model_version": VERSION}
    if asked.id is not None:
        told["id"] = asked.id
    if images.nbytes <= _LARGE and wanted == [("images", True)]:
        content, head = packed(told, wanted, images)
    else:
        content, head = await asyncio.to_thread(packed, told, wanted, images)
    if head is None:
        return Response(content, media_type="application/json")
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"Inference-Header-Content-Length": str(head)},
    )


def _asked(request: Request) -> tuple[str, Sampler]:
    """The model that a path names."""
    name = request.path_params["model"]
    sampler = service_of(request).named(name)
    version = request.path_params.get("version", VERSION)
    if version != VERSION:
        raise HTTPException(404, f"model {name!r}: found version {version!r}; there is {VERSION}")
    return name, sampler


def _state(name: str, good: bool) -> Response:
    return JSONResponse({name: good}, 200 if good else 503)


def _tensors(sampler: Sampler) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs: name, type, shape without N."""
    info = sampler.info
    inputs: list[Any] = [("seed", "UINT64", [1]), ("z", "FP32", [info["z_dim"]])]
    if sampler.classes:
        inputs.append(("label", "INT64", [1]))
    if info["truncation_modes"]:
        inputs.append(("truncation", "FP64", [1]))
    outputs = [("images", "UINT8", list(info["shape"])), ("png", "BYTES", [])]
    return inputs, outputs


def _described(tensor: tuple[str, str, list[int]]) -> dict[str, Any]:
    name, kind, shape = tensor
    return {"name": name, "datatype": kind, "shape": [-1, *shape]}


def _configured(tensor: tuple[str, str, list[int]]) -> dict[str, Any]:
    name, kind, shape = tensor
    data_type = "TYPE_STRING" if kind == "BYTES" else f"TYPE_{kind}"
    return {"name": name, "data_type": data_type, "dims": shape}
