"""Which TensorRT library an engine needs, and whether the engine is one for this host."""

import importlib
import logging
import platform
import re
from types import ModuleType
from typing import Any

from ganinfer.bundle.manifest import Engine
from ganinfer.errors import BackendUnavailable, missing_extra

log = logging.getLogger(__name__)

# Targets of more than one kind of GPU; of "same-cc" an entry names the compute capability, too.
PORTABLE, AMPERE_PLUS, SAME_CC = "portable", "ampere+", "same-cc"


def host_platform() -> str:
    """Operating system and architecture, as in "linux-x86_64"."""
    return f"{platform.system()}-{platform.machine()}".lower()


def oldest_gpu(target: str) -> int | None:
    """Number of the oldest GPU that an engine's target covers: 89 of "sm89", None of "portable"."""
    if target == AMPERE_PLUS:
        return 80
    number = target.rpartition("sm")[2]
    return int(number) if number.isdecimal() else None


def fits(target: str, capability: str) -> bool:
    """Is an engine for this target one for a GPU of this compute capability ("sm89")?"""
    if target == AMPERE_PLUS:
        return int(capability.removeprefix("sm")) >= 80
    return target in (PORTABLE, capability, f"{SAME_CC}-{capability}")


def breadth(target: str) -> int:
    """An engine for this very GPU comes before one for many."""
    return 2 if target == PORTABLE else int(target == AMPERE_PLUS)


def find_library(entry: Engine, capability: str) -> ModuleType:
    """The library that an engine needs, if the engine fits it and this host.

    Raises:
        BackendUnavailable: it does not, or the library is not installed in that version.
    """
    here = host_platform()
    if entry.platform != here:
        raise BackendUnavailable(f"one was built for {entry.platform}, this is {here}")
    if not fits(entry.target, capability):
        raise BackendUnavailable(f"one was built for {entry.target}, this GPU is {capability}")
    trt = load_library(entry.product)
    if trt.__version__ != entry.version:
        raise BackendUnavailable(
            f"one was built with {entry.product} {entry.version}, {trt.__version__} is installed"
        )
    return trt


def load_library(product: str) -> ModuleType:
    """TensorRT of a product, "tensorrt" or "tensorrt_rtx".

    Raises:
        BackendUnavailable: it is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module(product)
    except ModuleNotFoundError as error:
        raise BackendUnavailable(str(missing_extra(product, error))) from None
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"{product} cannot be loaded: {error}") from None


_loggers: dict[str, Any] = {}
# A builder's word for what an engine that is opened tells as device_memory_size_v2.
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")


def product_logger(trt: ModuleType) -> Any:
    """The library keeps the first logger it is given for the whole process; so do we."""
    if trt.__name__ not in _loggers:

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            """Passes messages on to logging; keeps those of errors, and a builder's of memory."""

            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.messages: list[str] = []
                self.activation_bytes: list[int] = []

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.Severity.ERROR:
                    self.messages.append(message)
                if found := _ACTIVATIONS.match(message):
                    self.activation_bytes.append(int(found[1]))
                log.debug("%s: %s", severity, message)

        _loggers[trt.__name__] = Logger()
    return _loggers[trt.__name__]
