"""gRPC's own health checks, as Kubernetes' probes ask for them.

The service "live" says whether this process can serve; "", and the name of the inference service,
whether requests should come here.
"""

import asyncio
from typing import Any

import grpc
from starlette.exceptions import HTTPException

from ganinfer.open_inference.messages import HEALTH_SERVICE, INFERENCE_SERVICE, health
from ganinfer.server.rpc.door import Call, Door
from ganinfer.server.service import Service

_LOOK_EVERY_S = 0.5


def health_handlers(service: Service, door: Door) -> grpc.GenericRpcHandler:
    """Of Check and Watch; neither needs a key."""

    async def check(asked: Any, _: Call) -> Any:
        status = _status(service, asked.service)
        if status == "SERVICE_UNKNOWN":
            raise HTTPException(404, f"service {asked.service!r:.40}: expected none, or live")
        return health.HealthCheckResponse(status=status)

    async def watch(asked: Any, call: Call) -> None:
        """What it is, and what it becomes, until the server stops."""
        told = None
        while True:
            status, last = _status(service, asked.service), service.draining
            if status != told:
                await call.send(health.HealthCheckResponse(status=status))
                told = status
            if last:
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    kind = health.HealthCheckRequest
    return grpc.method_handlers_generic_handler(
        HEALTH_SERVICE,
        {
            "Check": door.one(f"/{HEALTH_SERVICE}/Check", kind, check, guarded=False),
            "Watch": door.many(f"/{HEALTH_SERVICE}/Watch", kind, watch, guarded=False),
        },
    )


def _status(service: Service, name: str) -> str:
    if name == "live":
        return "SERVING" if service.live else "NOT_SERVING"
    if name in ("", INFERENCE_SERVICE):
        return "SERVING" if service.ready else "NOT_SERVING"
    return "SERVICE_UNKNOWN"
