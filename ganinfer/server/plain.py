"""Pictures by URL: /v1/{model}/image.png?seed=7&label=3, /v1/{model}/grid.png?seed=0&n=16.

A URL that pins its bundle (&bundle=<the first digits of its sha256>) gives the same bytes for ever,
and is cached so; others are asked for again by their ETag, and not drawn if it is the same.
"""

import asyncio
import json
import re
import zlib
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import PIL
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ganinfer.drawing.images import grid
from ganinfer.sampler import Sampler
from ganinfer.server.answers import malformed
from ganinfer.server.pictures import FORMATS, check_format, class_of
from ganinfer.server.service import service_of

MIN_PIN = 12  # digits of a sha256, as `bundle` in /metrics has them
_OF_ALL = ("seed", "label", "truncation", "truncation_mode", "bundle")
_OF_GRIDS = (*_OF_ALL, "n", "columns")


@dataclass(frozen=True)
class Picture:
    """What a URL asks for."""

    seed: int
    n: int
    label: int | None
    truncation: float | None
    truncation_mode: str | None
    columns: int | None
    grid: bool
    format: str


async def image(request: Request) -> Response:
    """One image, as it is."""
    return await _answer(request, _OF_ALL, grid_of=None)


async def sheet(request: Request) -> Response:
    """So many images of seeds that follow each other, in rows."""
    return await _answer(request, _OF_GRIDS, grid_of=16)


ROUTES = [
    Route("/v1/{model}/image.{format}", image, methods=["GET"]),
    Route("/v1/{model}/grid.{format}", sheet, methods=["GET"]),
]


async def _answer(request: Request, known: tuple[str, ...], *, grid_of: int | None) -> Response:
    service, name = service_of(request), request.path_params["model"]
    async with service.shelf.lent(name, service.serving.timeout_s) as (sampler, rest_s):
        return await _drawn(request, sampler, known, rest_s, grid_of=grid_of)


async def _drawn(
    request: Request,
    sampler: Sampler,
    known: tuple[str, ...],
    timeout_s: float,
    *,
    grid_of: int | None,
) -> Response:
    """The picture, or 304; drawn again if another bundle came to serve meanwhile."""
    service = service_of(request)
    given = _query(request, known)
    picture = _picture(request, sampler, given, grid_of)
    service.check_size(sampler, picture.n)
    media_type, encode = FORMATS[picture.format]
    while True:
        bundle = sampler.sha256
        pinned = _check_pin(given.get("bundle"), bundle)
        whose = "private" if service.serving.api_keys else "public"
        headers = {
            "ETag": _etag(sampler, bundle, picture),
            "Cache-Control": f"{whose}, max-age=31536000, immutable" if pinned else "no-cache",
        }
        if _matches(request.headers.get("if-none-match", ""), headers["ETag"]):
            return Response(status_code=304, headers=headers)
        work = sampler.asample(
            picture.n,
            seed=picture.seed,
            labels=picture.label,
            truncation=picture.truncation,
            truncation_mode=picture.truncation_mode,
            timeout_s=timeout_s,
        )
        images = await service.answered(request, work)
        if sampler.sha256 == bundle:
            break

    def pack() -> bytes:
        return encode(grid(images, columns=picture.columns) if picture.grid else images[0])

    return Response(await asyncio.to_thread(pack), media_type=media_type, headers=headers)


def _query(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    for name in names:
        if name not in known:
            raise malformed(f"{name!r:.40}: there is no such parameter; {', '.join(known)} are")
        if names.count(name) > 1:
            raise malformed(f"{name}: is there twice")
    return dict(given)


def _picture(
    request: Request, sampler: Sampler, given: dict[str, str], grid_of: int | None
) -> Picture:
    form = request.path_params["format"]
    if form not in FORMATS:
        raise HTTPException(404, f"{form!r:.40}: found no such format; {', '.join(FORMATS)} are")
    if grid_of is None:
        check_format(sampler, form)
    label = given.get("label")
    truncation = given.get("truncation")
    columns = given.get("columns")
    n = 1 if grid_of is None else _whole("n", given.get("n", str(grid_of)), least=1)
    return Picture(
        seed=_whole("seed", given.get("seed", "0")),
        n=n,
        label=None if label is None else class_of(sampler, label),
        truncation=None if truncation is None else _decimal("truncation", truncation),
        truncation_mode=given.get("truncation_mode"),
        columns=None if columns is None else min(_whole("columns", columns, least=1), n),
        grid=grid_of is not None,
        format=form,
    )


def _whole(name: str, text: str, *, least: int = 0) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) < least:
        raise malformed(f"{name}: found {text!r:.40}; expected a number, {least} or more")
    return int(text)


def _decimal(name: str, text: str) -> float:
    if not re.fullmatch(r"[0-9.eE+-]{1,40}", text):
        raise malformed(f"{name}: found {text!r:.40}; expected a number, as in 0.7")
    try:
        return float(text)
    except ValueError:
        raise malformed(f"{name}: found {text!r:.40}; expected a number, as in 0.7") from None


def _check_pin(pin: str | None, bundle: str) -> bool:
    """Whether the URL says which bundle; 404 if it is another one."""
    if pin is None:
        return False
    if not re.fullmatch(rf"[0-9a-f]{{{MIN_PIN},64}}", pin):
        raise malformed(f"bundle: found {pin!r:.80}; expected {MIN_PIN} to 64 digits of its sha256")
    if not bundle.startswith(pin):
        raise HTTPException(404, f"bundle {pin}: another one serves, {bundle[:MIN_PIN]}")
    return True


def _etag(sampler: Sampler, bundle: str, picture: Picture) -> str:
    """Names the bytes: of the pixels, and of the programs that pack them."""
    info = sampler.info
    parts: list[Any] = [bundle, info["backend"], info["device"], info["precision"], vars(picture)]
    parts += [PIL.__version__, zlib.ZLIB_RUNTIME_VERSION]
    return f'"{sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]}"'


def _matches(asked: str, etag: str) -> bool:
    """If-None-Match compares weakly."""
    tags = [tag.strip().removeprefix("W/") for tag in asked.split(",")]
    return etag in tags or "*" in tags
