"""Nothing phones home: the telemetry of the libraries that run networks is off.

Unless the user has set it: by ORT_DISABLE_TELEMETRY=0 for onnxruntime, which documents it, and by
`opt_in_out --opt_in` for OpenVINO.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_ORT = "ORT_DISABLE_TELEMETRY"
_OPENVINO = "openvino_telemetry"
_CONSENT = Path("~/intel/openvino_telemetry")  # holds "1" of who has agreed


def quiet_onnxruntime() -> None:
    """To be called before onnxruntime is imported, which starts a thread and keeps a device id."""
    os.environ.setdefault(_ORT, "1")


@contextlib.contextmanager
def quiet_openvino() -> Iterator[None]:
    """Within it OpenVINO is imported as if its package for telemetry were not installed.

    Its import alone would write an id and look a name up; without that package it has a stub.
    """
    if _OPENVINO in sys.modules or _agreed():
        yield
        return
    sys.modules[_OPENVINO] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_OPENVINO]


def _agreed() -> bool:
    try:
        return _CONSENT.expanduser().read_text().strip() == "1"
    except (OSError, RuntimeError, ValueError):  # no such file; nobody's home
        return False
