"""OpenAI's images: POST /v1/images/generations, and /v1/models.

A prompt is a class, by its name or number; the empty one lets each seed draw its own.
"""

import asyncio
import base64
import secrets
import time
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ganinfer.drawing.images import Images
from ganinfer.drawing.latents import seed_array
from ganinfer.sampler import Sampler
from ganinfer.server.answers import malformed
from ganinfer.server.bodies import Body, read_body, read_json
from ganinfer.server.keeping import MIN_PIN
from ganinfer.server.pictures import FORMATS, check_format, class_of
from ganinfer.server.service import Service, service_of
from ganinfer.server.tensors import integer


class Generation(Body):
    """model: may be left out where there is one. seed: of the first image; by default any."""

    prompt: str
    model: str | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    size: str | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "webp", "jpeg"] | None = None
    seed: int | str | None = None


async def generations(request: Request) -> Response:
    """Images as OpenAI's clients ask for them; each comes with its seed, as a text.

    Those that are told by their URL are drawn when that is asked for.
    """
    service = service_of(request)
    asked = read_json(Generation, await read_body(request, service.serving))
    name = _name(service, asked.model)
    async with service.shelf.lent(name, service.serving.timeout_s) as (sampler, rest_s):
        return await _generated(request, asked, name, sampler, rest_s)


async def _generated(
    request: Request, asked: Generation, name: str, sampler: Sampler, timeout_s: float
) -> Response:
    service = service_of(request)
    n, form = asked.n or 1, asked.output_format or "png"
    height, width, _ = sampler.shape
    if asked.size not in (None, "auto", f"{width}x{height}"):
        raise malformed(f"size: found {asked.size!r:.40}; this model draws {width}x{height}")
    service.check_size(sampler, n)
    check_format(sampler, form)
    label = class_of(sampler, asked.prompt) if asked.prompt else None
    seed = secrets.randbits(63) if asked.seed is None else integer("seed", asked.seed)
    seeds = seed_array(range(seed, seed + n))
    if asked.response_format == "b64_json":
        work = sampler.asample(seeds=seeds, labels=label, timeout_s=timeout_s)
        images = await service.answered(request, work)
        kind, found = "b64_json", await asyncio.to_thread(_encoded, images, form)
    else:
        where = f"{request.base_url}v1/{name}/image.{form}"
        chosen = {"bundle": sampler.sha256[:MIN_PIN]}
        if label is not None:
            chosen["label"] = str(label)
        kind = "url"
        found = [f"{where}?{urlencode({'seed': seed, **chosen})}" for seed in seeds.tolist()]
    data = [{kind: one, "seed": str(seed)} for one, seed in zip(found, seeds, strict=True)]
    return JSONResponse(
        {"created": int(time.time()), "data": data, "output_format": form},
        headers={"Cache-Control": "no-store"},
    )


def _encoded(images: Images, form: str) -> list[str]:
    encode = FORMATS[form][1]
    return [base64.b64encode(encode(image)).decode() for image in images]


def _name(service: Service, name: str | None) -> str:
    """Of the model that is asked for, or of the only one."""
    if name is not None:
        return name
    names = service.shelf.names
    if len(names) > 1:
        raise malformed(f"model: expected one of {', '.join(sorted(names))}")
    return names[0]


async def models(request: Request) -> Response:
    """All models."""
    data = [_card(name) for name in service_of(request).shelf.names]
    return JSONResponse({"object": "list", "data": data})


async def model(request: Request) -> Response:
    """One model."""
    name = request.path_params["model"]
    service_of(request).shelf.known(name)
    return JSONResponse(_card(name))


def _card(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "ganinfer"}


ROUTES = [
    Route("/v1/images/generations", generations, methods=["POST"]),
    Route("/v1/models", models, methods=["GET"]),
    Route("/v1/models/{model}", model, methods=["GET"]),
]
