"""Pictures by URL, and what a model can be asked for.

/v1/{model}/image.png?seed=7&label=3, /v1/{model}/grid.png?seed=0&n=16, and of the way between two
seeds /v1/{model}/interpolate.gif?seed=7&to=8, or one image of it, image.png?seed=7&to=8&t=0.35.
"""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ganinfer.drawing.images import Images, grid
from ganinfer.errors import DeadlineExceeded
from ganinfer.film import KINDS, encode_film, encodes, enlargement
from ganinfer.sampler import Sampler
from ganinfer.server.asked import Kind, Picture, read_picture, read_query
from ganinfer.server.keeping import is_known, kept
from ganinfer.server.pictures import FORMATS
from ganinfer.server.service import service_of

_FILM_TYPES = {"gif": "image/gif", "webp": "image/webp", "mp4": "video/mp4"}


async def image(request: Request) -> Response:
    """One image, as it is: of a seed, or of a place between two."""
    return await _answer(request, "image")


async def sheet(request: Request) -> Response:
    """So many images of seeds that follow each other, in rows."""
    return await _answer(request, "grid")


async def film(request: Request) -> Response:
    """The way from one seed to another, both included."""
    return await _answer(request, "film")


async def about(request: Request) -> Response:
    """What the model draws, and what it can be asked for."""
    service, name = service_of(request), request.path_params["model"]
    known = service.shelf.known(name)
    info = known.info
    height, width, channels = info["shape"]
    taken = info["truncation_input"]
    return JSONResponse(
        {
            "model": name,
            "bundle": known.sha256,
            "height": height,
            "width": width,
            "channels": channels,
            "classes": known.classes,
            "mixtures": info["class_input"] == "weights",
            "truncation_modes": info["truncation_modes"],
            "truncation_range": [taken["least"], taken["largest"]] if taken else None,
            "default_truncation": info["default_truncation"],
            "spaces": ["z", "w"] if info["style_input"] else ["z"],
            "films": [kind for kind in KINDS if encodes(kind)],
            "max_images": service.most_images(height, width),
        },
        headers={"Cache-Control": "no-cache"},
    )


ROUTES = [
    Route("/v1/{model}", about, methods=["GET"]),
    Route("/v1/{model}/image.{format}", image, methods=["GET"]),
    Route("/v1/{model}/grid.{format}", sheet, methods=["GET"]),
    Route("/v1/{model}/interpolate.{format}", film, methods=["GET"]),
]


async def _answer(request: Request, kind: Kind) -> Response:
    service, name = service_of(request), request.path_params["model"]
    given = read_query(request, kind)
    deadline = time.monotonic() + service.serving.timeout_s
    async with service.shelf.lent(name, service.serving.timeout_s) as (sampler, rest_s):
        picture = read_picture(sampler, kind, request.path_params["format"], given)
        scale = enlargement(*sampler.info["shape"][:2]) if kind == "film" else 1
        service.check_size(sampler, picture.n, scale=scale)
        headers, images = await _drawn(request, sampler, picture, given.get("bundle"), rest_s)
    if images is None:
        return Response(status_code=304, headers=headers)
    if kind == "film":
        media_type = _FILM_TYPES[picture.format]
        content = await _film(request, picture, images, deadline)
    else:
        media_type, encode = FORMATS[picture.format]
        shown = grid(images, columns=picture.columns) if kind == "grid" else images[0]
        content = await asyncio.to_thread(encode, shown)
    return Response(content, media_type=media_type, headers=headers)


async def _drawn(
    request: Request, sampler: Sampler, picture: Picture, pin: str | None, timeout_s: float
) -> tuple[dict[str, str], Images | None]:
    """Headers and images, which are None if the client has the picture.

    They are drawn again if another bundle came to serve meanwhile.
    """
    while True:
        bundle = sampler.sha256
        headers = kept(request, sampler, bundle, pin, vars(picture))
        if is_known(request, headers):
            return headers, None
        drawing = _drawing(sampler, picture, timeout_s)
        images = await service_of(request).answered(request, drawing)
        if sampler.sha256 == bundle:
            return headers, images


def _drawing(sampler: Sampler, picture: Picture, timeout_s: float) -> Coroutine[Any, Any, Images]:
    truncation, mode = picture.truncation, picture.truncation_mode
    if picture.to is None:
        return sampler.asample(
            picture.n,
            seed=picture.seed,
            labels=picture.label,
            truncation=truncation,
            truncation_mode=mode,
            timeout_s=timeout_s,
        )
    return sampler.ainterpolate(
        picture.seed,
        picture.to,
        picture.n if picture.t is None else [picture.t],
        label=picture.label,
        truncation=truncation,
        truncation_mode=mode,
        space=picture.space,
        timeout_s=timeout_s,
    )


async def _film(request: Request, picture: Picture, images: Images, deadline: float) -> bytes:
    """Packed beside the pictures, in time, and for no longer than somebody waits for it."""
    service, given_up = service_of(request), threading.Event()

    def pack() -> bytes:
        frames = until(deadline, given_up, images)
        return encode_film(frames, picture.format, fps=picture.fps)

    loop = asyncio.get_running_loop()
    try:
        return await service.answered(request, loop.run_in_executor(service.films, pack))
    finally:
        given_up.set()


def until(deadline: float, given_up: threading.Event, images: Images) -> Iterator[Images]:
    """Frames for a film, whose packing may take longer than they took to draw.

    Raises:
        DeadlineExceeded: there is no more time, or nobody waits any more.
    """
    for frame in images:
        if given_up.is_set() or time.monotonic() > deadline:
            raise DeadlineExceeded("the film was not packed in time; ask for fewer frames")
        yield frame
