"""The service of the Open Inference Protocol; tensors as `ganinfer.server.v2` says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from ganinfer.open_inference.messages import INFERENCE_SERVICE, inference
from ganinfer.server.describing import (
    VERSION,
    configured,
    described,
    described_server,
    figures,
    index,
    versioned,
)
from ganinfer.server.rpc.door import Call, Door
from ganinfer.server.rpc.inferring import infer, infer_stream
from ganinfer.server.service import Service

_OPEN = ("ServerLive", "ServerReady")  # without a key, as OPEN_PATHS over HTTP


def inference_handlers(
    service: Service, door: Door, reading: "set[asyncio.Task[None]]"
) -> grpc.GenericRpcHandler:
    """Of all methods.

    reading: has the tasks that wait for requests of streams; see `infer_stream`.
    """

    async def stream(asked: AsyncIterator[bytes], call: Call) -> None:
        await infer_stream(service, asked, call, reading)

    handlers = {
        method: door.one(
            f"/{INFERENCE_SERVICE}/{method}",
            getattr(inference, f"{method}Request"),
            partial(answer, service),
            guarded=method not in _OPEN,
        )
        for method, answer in _ANSWERS.items()
    }
    handlers["ModelStreamInfer"] = door.stream(f"/{INFERENCE_SERVICE}/ModelStreamInfer", stream)
    return grpc.method_handlers_generic_handler(INFERENCE_SERVICE, handlers)


async def _live(service: Service, _asked: Any, _call: Call) -> Any:
    return inference.ServerLiveResponse(live=service.live)


async def _ready(service: Service, _asked: Any, _call: Call) -> Any:
    return inference.ServerReadyResponse(ready=service.ready)


async def _model_ready(service: Service, asked: Any, _call: Call) -> Any:
    """What is not there is not ready."""
    known = asked.name in service.shelf.names and asked.version in ("", VERSION)
    return inference.ModelReadyResponse(ready=known and service.ready_for(asked.name))


async def _server(_service: Service, _asked: Any, _call: Call) -> Any:
    return ParseDict(described_server(), inference.ServerMetadataResponse())


async def _model(service: Service, asked: Any, _call: Call) -> Any:
    known = versioned(service, asked.name, asked.version or VERSION)
    return ParseDict(described(asked.name, known), inference.ModelMetadataResponse())


async def _config(service: Service, asked: Any, _call: Call) -> Any:
    known = versioned(service, asked.name, asked.version or VERSION)
    told = {"config": configured(service, asked.name, known)}
    return ParseDict(told, inference.ModelConfigResponse())


async def _statistics(service: Service, asked: Any, _call: Call) -> Any:
    """Of all models, if it names none."""
    models = service.shelf.all_known
    if asked.name:
        models = {asked.name: versioned(service, asked.name, asked.version or VERSION)}
    told = {"model_stats": [figures(service, *item) for item in models.items()]}
    return ParseDict(told, inference.ModelStatisticsResponse())


async def _index(service: Service, asked: Any, _call: Call) -> Any:
    models = [one for one in index(service) if one["state"] == "READY" or not asked.ready]
    return ParseDict({"models": models}, inference.RepositoryIndexResponse())


_ANSWERS: dict[str, Callable[[Service, Any, Call], Awaitable[Any]]] = {
    "ServerLive": _live,
    "ServerReady": _ready,
    "ModelReady": _model_ready,
    "ServerMetadata": _server,
    "ModelMetadata": _model,
    "ModelConfig": _config,
    "ModelStatistics": _statistics,
    "RepositoryIndex": _index,
    "ModelInfer": infer,
}
