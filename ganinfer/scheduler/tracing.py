"""Spans of requests and batches, for programs that trace with OpenTelemetry.

Its API is no dependency: where it is not installed, nothing is traced. The API sends nothing; where
spans go is up to the program, which sets up an SDK.
"""

import contextlib
import functools
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ganinfer.scheduler.request import Piece, Request

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from ganinfer.backends._base import Backend


_NOTHING = contextlib.nullcontext()


class Tracing:
    """Traces nothing."""

    def begin(self, request: Request) -> None:
        """A request is made, in its caller's thread or task."""

    def end(self, request: Request, outcome: str, error: BaseException | None = None) -> None:
        """A request is told.

        Args:
            request: that was begun.
            outcome: as in `Stats.ended`, or "refused".
            error: that its caller gets.
        """

    def batch(
        self,
        backend: "Backend",  # noqa: ARG002
        pieces: Sequence[Piece],  # noqa: ARG002
    ) -> AbstractContextManager[object]:
        """Within it these pieces of requests are run as a batch."""
        return _NOTHING


class OpenTelemetry(Tracing):
    """A span for each request, `ganinfer.request`, and for each batch, `ganinfer.batch`.

    A request's parent is the span that its caller is in. A batch's parent is the span of its first
    request; it is linked to those of the others.
    """

    def __init__(self, tracer: "Tracer", sha256: str, backends: Sequence["Backend"]) -> None:
        """sha256: of the bundle. backends: that run it, one a device."""
        from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider

        self._tracer, self._provider, self._none_yet = (
            tracer,
            get_tracer_provider,
            ProxyTracerProvider,
        )
        self._bundle = sha256[:12]
        self._sampler = self._attributes(backends[0])
        self._sampler["ganinfer.device"] = ", ".join(backend.device for backend in backends)

    def _attributes(self, backend: "Backend") -> dict[str, str]:
        return {
            "ganinfer.bundle": self._bundle,
            "ganinfer.backend": backend.name,
            "ganinfer.device": backend.device,
            "ganinfer.precision": backend.precision,
        }

    def begin(self, request: Request) -> None:
        if isinstance(self._provider(), self._none_yet):
            return
        age_s = time.monotonic() - request.arrived
        request.span = self._tracer.start_span(
            "ganinfer.request",
            start_time=time.time_ns() - int(1e9 * age_s),
            attributes={**self._sampler, "ganinfer.images": len(request.images)},
        )

    def end(self, request: Request, outcome: str, error: BaseException | None = None) -> None:
        span = request.span
        if span is None:
            return
        from opentelemetry.trace import Status, StatusCode

        begun = request.begun or time.monotonic()  # or it waited all the time
        span.set_attribute("ganinfer.queue_s", begun - request.arrived)
        span.set_attribute("ganinfer.outcome", outcome)
        if error is not None:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, str(error)))
        span.end()

    def batch(self, backend: "Backend", pieces: Sequence[Piece]) -> AbstractContextManager[object]:
        from opentelemetry.trace import Link, set_span_in_context

        spans = [piece.request.span for piece in pieces if piece.request.span is not None]
        if not spans:
            return _NOTHING
        first, *others = spans
        span: AbstractContextManager[object] = self._tracer.start_as_current_span(
            "ganinfer.batch",
            context=set_span_in_context(first),
            links=[Link(span.get_span_context()) for span in others],
            attributes={**self._attributes(backend), "ganinfer.images": sum(map(len, pieces))},
        )
        return span


@functools.cache
def installed() -> bool:
    """Whether the API is; `opentelemetry` itself is a folder that other packages lie in, too."""
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.trace") is not None


def open_tracing(sha256: str, backends: Sequence["Backend"]) -> Tracing:
    """What traces a bundle's requests: with OpenTelemetry where that is installed."""
    if not installed():
        return Tracing()
    from opentelemetry.trace import get_tracer

    from ganinfer import __version__

    return OpenTelemetry(get_tracer("ganinfer", __version__), sha256, backends)
