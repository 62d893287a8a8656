"""How bundles are served: limits, keys, and who may ask."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ganinfer.drawing.arguments import checked_duration, checked_integer
from ganinfer.errors import RequestError
from ganinfer.options import Option

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TAKEN = ("images", "models", "stats")  # of paths beside models'


@dataclass(frozen=True, kw_only=True)
class Serving:
    """Options of `ganinfer.server.app`, and of `gan serve`.

    Attributes:
        timeout_s: within which a request is answered; a client may ask for less.
        drain_s: that requests have to end in when the server stops; then they are told 503. Whole
            seconds; parts of one are rounded up.
        max_images, max_megapixels: of one request.
        max_body_mib: of one request, also once it is inflated.
        cors: origins whose pages may ask, as in https://example.org, or *; none by default.
        api_keys: a file with a key in each line; all but the probes then need one of them.
        access_log: tell the logger ganinfer.server.access of every request, as a line of JSON.

    Raises:
        RequestError: one that no server can have.
    """

    timeout_s: Annotated[float, Option(help="Seconds within which a request is answered.")] = 30.0
    drain_s: Annotated[float, Option(help="Seconds that requests have to end in, at SIGTERM.")] = (
        30.0
    )
    max_images: Annotated[int, Option(help="Images of one request, at most.")] = 1024
    max_megapixels: Annotated[float, Option(help="Megapixels of one request, at most.")] = 64.0
    max_body_mib: Annotated[float, Option(help="MiB of a request's body, at most.")] = 16.0
    cors: Annotated[
        tuple[str, ...],
        Option(
            repeated=True, metavar="<origin>", help="Origin whose pages may ask; may be repeated."
        ),
    ] = ()
    api_keys: Annotated[
        Path | None,
        Option(
            parse=Path,
            metavar="<path>",
            help="File of the API keys that may ask, one in each line.",
        ),
    ] = None
    access_log: Annotated[bool, Option(help="A line of JSON on stdout for each request.")] = False

    @property
    def max_body_bytes(self) -> int:
        """Of a request's body; as many numbers may an answer in JSON have."""
        return int(self.max_body_mib * (1 << 20))

    def __post_init__(self) -> None:
        checked_integer("max_images", self.max_images, least=1)
        checked_duration("drain_s", self.drain_s)
        for name in ("timeout_s", "max_megapixels", "max_body_mib"):
            value = getattr(self, name)
            if checked_duration(name, value) == 0:
                raise RequestError(f"{name}: found {value}; expected more than 0")


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a model in a URL.

    Raises:
        RequestError: names it.
    """
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise RequestError(
            f"model {name!r}: expected letters, digits, _, - and ., and none of"
            f" {', '.join(_TAKEN)}; name it, as in digits=path/of.gan"
        )
