"""A page for people: a model's seeds, classes, truncations and ways between seeds, in a browser.

It asks the paths of `ganinfer.server.plain`, as any page could, and nobody else.
"""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_FILES = {p.name: p.read_bytes() for p in Path(__file__).parent.iterdir() if p.suffix in _TYPES}
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

PATHS = frozenset({"/", *(f"/playground/{name}" for name in _FILES)})


async def page(_: Request) -> Response:
    """The document."""
    return _file("page.html")


async def part(request: Request) -> Response:
    """What belongs to it."""
    return _file(request.path_params["name"])


ROUTES = [
    Route("/", page, methods=["GET"]),
    Route("/playground/{name}", part, methods=["GET"]),
]


def _file(name: str) -> Response:
    if name not in _FILES:
        raise HTTPException(404, f"{name!r:.40}: the playground has no such file")
    return Response(_FILES[name], headers=_HEADERS, media_type=_TYPES[Path(name).suffix])
