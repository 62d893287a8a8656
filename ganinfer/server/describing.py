"""What the Open Inference Protocol tells of this server and its models, over HTTP and over gRPC.

Keys are the protocol's names of fields.
"""

from typing import Any

from starlette.exceptions import HTTPException

from ganinfer.sampler import Sampler
from ganinfer.scheduler.stats import Stats
from ganinfer.server.service import Service
from ganinfer.server.unopened import Unopened

VERSION = "1"  # of every model
Known = Sampler | Unopened


def versioned(service: Service, name: str, version: str) -> Known:
    """What is known of a model; 404 if there is none of that version."""
    known = service.shelf.known(name)
    if version != VERSION:
        raise HTTPException(404, f"model {name!r}: found version {version!r}; there is {VERSION}")
    return known


def described_server() -> dict[str, Any]:
    """The server's metadata."""
    from ganinfer import __version__

    extensions = ["binary_tensor_data", "model_configuration", "statistics"]
    return {"name": "ganinfer", "version": __version__, "extensions": extensions}


def described(name: str, known: Known) -> dict[str, Any]:
    """A model's metadata."""
    inputs, outputs = _tensors(known)
    return {
        "name": name,
        "versions": [VERSION],
        "platform": "ganinfer",
        "inputs": [_described(tensor) for tensor in inputs],
        "outputs": [_described(tensor) for tensor in outputs],
    }


def configured(service: Service, name: str, known: Known) -> dict[str, Any]:
    """A model's configuration."""
    inputs, outputs = _tensors(known)
    told = {"bundle_sha256": known.sha256, "classes": ",".join(known.classes)}
    return {
        "name": name,
        "platform": "ganinfer",
        "backend": "ganinfer",
        "max_batch_size": service.serving.max_images,
        "input": [{**_configured(tensor), "optional": True} for tensor in inputs],
        "output": [_configured(tensor) for tensor in outputs],
        "parameters": {key: {"string_value": value} for key, value in told.items()},
    }


def figures(service: Service, name: str, known: Known) -> dict[str, Any]:
    """A model's statistics: inferences by this protocol, the rest of everybody who asks.

    All are of this process; the rest since the bundle was opened.
    """
    stats = known.stats if isinstance(known, Sampler) else Stats().read()
    tally, queued = service.tallies[name], stats["queue_seconds"]

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
            "queue": duration(queued["count"], 1e9 * queued["sum"]),
            "compute_input": duration(stats["batches"], 1e9 * stats["latents_s"]),
            "compute_infer": duration(stats["batches"], 1e9 * stats["device_s"]),
        },
        "batch_stats": [],
    }


def index(service: Service) -> list[dict[str, str]]:
    """All models, and whether they are ready."""
    models = []
    for name in service.shelf.names:
        ready = service.ready_for(name)
        state, reason = ("READY", "") if ready else ("UNAVAILABLE", "not ready now")
        models.append({"name": name, "version": VERSION, "state": state, "reason": reason})
    return models


def _tensors(known: Known) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs: name, type, shape without N."""
    info = known.info
    inputs: list[Any] = [("seed", "UINT64", [1]), ("z", "FP32", [info["z_dim"]])]
    if known.classes:
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
