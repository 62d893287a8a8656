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

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ganinfer.drawing.images import Images, check_picture, encode_pngs
from ganinfer.sampler import Sampler
from ganinfer.server.answers import malformed
from ganinfer.server.bodies import read_body
from ganinfer.server.service import Service, service_of
from ganinfer.server.tensors import (
    InferenceRequest,
    Output,
    Tensor,
    integer,
    pack_answer,
    read_request,
)

VERSION = "1"  # of every model
_LARGE = 1 << 18  # bytes of pixels whose answer is packed beside the event loop


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
    asked, tensors = read_request(body, request.headers.get("inference-header-content-length"))
    wanted = _outputs(asked)
    if any(output == "png" for output, _ in wanted):
        check_picture(sampler.info["channels"])
    images = await _drawn(service, request, sampler, asked, tensors)
    told = {"model_name": name, "model_version": VERSION}
    if asked.id is not None:
        told["id"] = asked.id

    def pack() -> tuple[bytes, int | None]:
        outputs = [
            Output(output, binary, files=encode_pngs(images))
            if output == "png"
            else Output(output, binary, pixels=images)
            for output, binary in wanted
        ]
        return pack_answer(told, outputs)

    at_once = images.nbytes <= _LARGE and wanted == [("images", True)]
    content, head = pack() if at_once else await asyncio.to_thread(pack)
    if head is None:
        return Response(content, media_type="application/json")
    return Response(
        content,
        media_type="application/octet-stream",
        headers={"Inference-Header-Content-Length": str(head)},
    )


async def _drawn(
    service: Service,
    request: Request,
    sampler: Sampler,
    asked: InferenceRequest,
    tensors: dict[str, Tensor],
) -> Images:
    """The images of a request's inputs."""
    if unknown := set(tensors) - {"seed", "z", "label", "truncation"}:
        raise malformed(
            f"inputs: found {', '.join(sorted(unknown))}; expected seed or z, and label, truncation"
        )
    if ("seed" in tensors) == ("z" in tensors):
        raise malformed("inputs: expected either seed or z")
    first = "seed" if "seed" in tensors else "z"
    n = tensors[first].shape[0] if tensors[first].shape else 0
    if n == 0:
        raise malformed(f"{first}: found no image; expected the shape (N, ...)")
    service.check_size(sampler, n)
    labels = _labels(sampler, tensors.get("label"), n)
    truncation = _truncation(tensors.get("truncation"))
    mode, timeout_s = asked.parameters.get("truncation_mode"), _timeout_s(service, asked)
    if mode is not None and not isinstance(mode, str):
        raise malformed("truncation_mode: expected a text")
    if first == "z":
        z = _values("z", tensors["z"], "FP32", None)
        if mode is not None:
            raise malformed("truncation_mode: found beside z; it goes with seed")
        work = sampler.agenerate(z, labels, truncation=truncation, timeout_s=timeout_s)
    else:
        work = sampler.asample(
            seeds=_values("seed", tensors["seed"], "UINT64", n),
            labels=labels,
            truncation=truncation,
            truncation_mode=mode,
            timeout_s=timeout_s,
        )
    return await service.answered(request, work)


def _values(name: str, tensor: Tensor, kind: str, n: int | None) -> Any:
    """Of an input of a type: (n,) of the shapes (n,) and (n, 1), or as it is shaped."""
    if tensor.datatype != kind:
        raise malformed(f"{name}: found {tensor.datatype}; expected {kind}")
    assert isinstance(tensor.values, np.ndarray)
    if n is None:
        return tensor.values.reshape(tensor.shape)
    _check_shape(name, tensor, n)
    return tensor.values


def _check_shape(name: str, tensor: Tensor, n: int) -> None:
    if tensor.shape not in ((n,), (n, 1)):
        raise malformed(f"{name}: found the shape {list(tensor.shape)}; expected [{n}] or [{n}, 1]")


def _labels(sampler: Sampler, tensor: Tensor | None, n: int) -> NDArray[np.int64] | None:
    """Class numbers (n,)."""
    if tensor is None:
        return None
    if tensor.datatype != "BYTES":
        numbers: NDArray[np.int64] = _values("label", tensor, "INT64", n)
        return numbers
    _check_shape("label", tensor, n)
    return np.array([sampler.number_of(str(name)) for name in tensor.values], np.int64)


def _truncation(tensor: Tensor | None) -> float | None:
    """One value, however often it is there."""
    if tensor is None:
        return None
    if tensor.datatype == "FP32":
        raise malformed("truncation: found FP32; expected FP64, as 0.7 is another number in FP32")
    values = set(_values("truncation", tensor, "FP64", None).ravel().tolist())
    if len(values) != 1:
        raise malformed(f"truncation: found {len(values)} values; expected one a request")
    found: float = values.pop()
    return found


def _timeout_s(service: Service, asked: InferenceRequest) -> float:
    """The protocol's timeout is in microseconds; 0 is the server's own."""
    microseconds = integer("timeout", asked.parameters.get("timeout", 0))
    if microseconds < 0:
        raise malformed(f"timeout: found {microseconds}; expected microseconds, 0 or more")
    longest = service.serving.timeout_s
    return min(longest, microseconds / 1e6) if microseconds else longest


def _outputs(asked: InferenceRequest) -> list[tuple[str, bool]]:
    """Names of outputs, and whether they are binary."""
    default = asked.parameters.get("binary_data_output", False)
    wanted = []
    for output in asked.outputs:
        if output.name not in ("images", "png"):
            raise malformed(f"outputs: found {output.name!r:.40}; expected images, png")
        if "shared_memory_region" in output.parameters or "classification" in output.parameters:
            raise malformed(f"{output.name}: neither shared memory nor classes are served")
        wanted.append((output.name, output.parameters.get("binary_data", default)))
    wanted = wanted or [("images", default)]
    if len({name for name, _ in wanted}) < len(wanted):
        raise malformed("outputs: one is there twice")
    for name, binary in wanted:
        if not isinstance(binary, bool):
            raise malformed(f"{name}: binary_data: expected true or false")
        if name == "png" and not binary:
            raise malformed("png: files are no JSON; ask for it with binary_data")
    return wanted


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
