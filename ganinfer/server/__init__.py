"""A server: bundles over HTTP, for any client of the Open Inference Protocol and for browsers.

from ganinfer.server import Serving, app
application = app({"digits": Sampler("digits.gan")}, Serving(timeout_s=10.0))   # any ASGI host
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ganinfer.errors import missing_extra
from ganinfer.server.serving import Serving

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ganinfer.sampler import Sampler

__all__ = ["Serving", "app"]


def app(samplers: "Mapping[str, Sampler]", serving: Serving | None = None) -> "ASGIApp":
    """An ASGI application that answers from samplers; `gan serve` runs it in uvicorn.

    When it starts it draws a batch of each size, and is ready then (/readyz); when its host stops
    it, it is ready no more. It closes no sampler: whoever opened them does, afterwards.

    Args:
        samplers: by the names of their models in URLs: letters, digits, "_", "-" and ".".
        serving: limits, keys and what else there is to choose.

    Raises:
        RequestError: no sampler, or a name that no URL can have.
        ConfigError: the file of keys cannot be used.
        MissingExtra: starlette is not installed.
    """
    try:
        from ganinfer.server.application import Application
    except ModuleNotFoundError as error:
        raise missing_extra("starlette", error) from None
    return Application(samplers, serving or Serving())
