"""Ids of requests, and the log of all that were asked."""

import json
import logging
import re
import secrets
import sys
from datetime import UTC, datetime

from ganinfer.server.traces import Trace

log = logging.getLogger(__name__)

_SANE_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_id(shown: str) -> str:
    """The id that a client gives its request, if it is a sane one; else a new one."""
    return shown if _SANE_ID.fullmatch(shown) else secrets.token_hex(16)


def log_request(
    identity: str,
    trace: Trace | None,
    *,
    client: str,
    method: str,
    path: str,
    status: int | str,
    seconds: float,
    sent: int,
) -> None:
    """Log a request, as a line of JSON.

    Args:
        identity: its id. trace: that it belongs to. client: its address.
        status: of HTTP, or the name of one of gRPC.
        seconds: that it took. sent: bytes of its answer.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": identity,
        "trace_id": trace and trace.trace_id,
        "client": client,
        "method": method,
        "path": path,
        "status": status,
        "ms": round(1000 * seconds, 3),
        "bytes": sent,
    }
    log.info(json.dumps(line))


def log_to_stdout() -> None:
    """For whoever collects it."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
