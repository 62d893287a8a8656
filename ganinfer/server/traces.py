"""The trace that a request belongs to, as its client tells it: W3C Trace Context.

traceparent: 00-<trace id, 32 digits>-<the client's span, 16 digits>-<flags, 2 digits>
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ganinfer.scheduler.tracing import installed

TRACE_HEADERS = ("traceparent", "tracestate")

# Of versions to come the first four fields are read, whatever follows them.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True)
class Trace:
    """Where a request comes from; digits are hexadecimal."""

    trace_id: str
    span_id: str
    flags: int
    state: tuple[str, ...]


def trace_of(parents: Sequence[str], states: Sequence[str]) -> Trace | None:
    """What a request tells; None if that is nothing, or malformed.

    Args:
        parents, states: of its headers traceparent and tracestate.
    """
    match = _TRACEPARENT.fullmatch(parents[0].strip(" \t")) if len(parents) == 1 else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Trace(trace_id, span_id, int(flags, 16), tuple(states))


@contextlib.contextmanager
def continued(trace: Trace | None) -> Iterator[None]:
    """Within it spans are below the client's, if OpenTelemetry is here and no span is open yet.

    One is where the host traces its requests itself.
    """
    if trace is None or not installed():
        yield
        return
    from opentelemetry import context
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        TraceState,
        get_current_span,
        set_span_in_context,
    )

    if get_current_span().get_span_context().is_valid:
        yield
        return
    parent = SpanContext(
        int(trace.trace_id, 16),
        int(trace.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(trace.flags),
        trace_state=TraceState.from_header(list(trace.state)),
    )
    token = context.attach(set_span_in_context(NonRecordingSpan(parent)))
    try:
        yield
    finally:
        context.detach(token)
