"""Every error that a user can cause, as one tree.

GanError
├── ConfigError         a config file, a --set override or an option of a part
│   └── ConfigNotFound      there is no such recipe, or no such key
├── DataError           a dataset that is missing, malformed or cannot be prepared
│   └── DataNotFound        there is none
├── CheckpointError     a run directory or a checkpoint that cannot be used
│   └── RunNotFound         there is none
├── TrainingError       a run that cannot go on (a loss that is not finite)
├── ExportError         a generator that cannot be made into a graph or an engine
│   └── WeightsNotFound     there is no such file of weights
├── ParityError         what ships, or runs here, is not what was trained
├── BundleError         a bundle that is broken, foreign or tampered with
│   ├── BundleNotFound      there is none
│   └── Unverified          a bundle that was exported without its parity check
├── BackendUnavailable  a backend, device or precision that this host cannot give
├── Closed              a Sampler that is closed, or closes
├── QueueFull           more waits than a Sampler allows
├── DeadlineExceeded    images that did not come in the time that was allowed
├── RequestError        seeds, labels, truncation or latents that a model cannot serve
└── MissingExtra        an optional package that is not installed

A message names what was found, what was expected and what to do. What is not found is a
FileNotFoundError, too.
"""

from enum import IntEnum


class GanError(Exception):
    """Root of all errors that ganinfer, gantrain and ganexport raise on purpose."""


class ConfigError(GanError):
    """A config file, an override or an option is wrong."""


class ConfigNotFound(ConfigError, FileNotFoundError):
    """There is no such recipe, or no such file of a key."""


class DataError(GanError):
    """A dataset is missing, malformed or cannot be prepared."""


class DataNotFound(DataError, FileNotFoundError):
    """There is no such dataset, or nothing that it could be made of."""


class CheckpointError(GanError):
    """A run directory or a checkpoint cannot be used."""


class RunNotFound(CheckpointError, FileNotFoundError):
    """There is no such run, or no checkpoint in it."""


class TrainingError(GanError):
    """A training run cannot go on."""


class ExportError(GanError):
    """A generator cannot be made into a graph or an engine."""


class WeightsNotFound(ExportError, FileNotFoundError):
    """There is no such file of weights."""


class ParityError(GanError):
    """What ships, or runs on this host, is not the generator that was trained."""


class BundleError(GanError):
    """A bundle is broken, foreign or tampered with."""


class BundleNotFound(BundleError, FileNotFoundError):
    """There is no such bundle."""


class Unverified(BundleError):
    """A bundle was exported without its parity check, and was not opened as such."""


class BackendUnavailable(GanError):
    """A backend, device or precision was asked for that this host cannot give."""


class Closed(GanError):
    """A Sampler is closed, or closes before a request's turn."""


class QueueFull(GanError):
    """More requests or images wait than a Sampler allows."""


class DeadlineExceeded(GanError, TimeoutError):
    """Images did not come in the time that was allowed."""


class RequestError(GanError, ValueError):
    """Seeds, labels, truncation or latents that the model cannot serve."""


class MissingExtra(GanError, ImportError):
    """An optional package is not installed."""


# What a service that samples answers over HTTP, RFC 9110, and over gRPC; the first class that fits.
# Others are the host's.
_STATUSES: list[tuple[type[BaseException], int, str]] = [
    (RequestError, 422, "INVALID_ARGUMENT"),
    (QueueFull, 429, "RESOURCE_EXHAUSTED"),
    (DeadlineExceeded, 504, "DEADLINE_EXCEEDED"),
    (Closed, 503, "UNAVAILABLE"),
    (BackendUnavailable, 503, "UNAVAILABLE"),
    (MissingExtra, 501, "UNIMPLEMENTED"),
    (BaseException, 500, "INTERNAL"),
]


def http_status(error: BaseException) -> int:
    """The HTTP status of an error: 422 the caller's, 429 and 503 to try again, 504 too late.

    501: a package is not installed here.

    Args:
        error: of any class; what is no `GanError` is 500.
    """
    return next(status for kind, status, _ in _STATUSES if isinstance(error, kind))


def grpc_status(error: BaseException) -> str:
    """The name of an error's gRPC status, which says the same as `http_status`.

    Args:
        error: of any class; what is no `GanError` is INTERNAL.
    """
    return next(name for kind, _, name in _STATUSES if isinstance(error, kind))


class Ending(IntEnum):
    """How a `gan` command ends: its exit code."""

    DONE = 0
    FAILED = 1
    USAGE = 2  # as Typer has it
    MISSING = 3
    DAMAGED = 4
    PARITY = 5
    UNAVAILABLE = 6
    UNVERIFIED = 7
    INTERRUPTED = 130  # 128 and SIGINT, as shells have it; 129 is SIGHUP, 143 SIGTERM


# The first class that fits. Others, as a disk that is full or a loss that is not finite, FAILED.
_ENDINGS: list[tuple[tuple[type[BaseException], ...], Ending]] = [
    ((FileNotFoundError,), Ending.MISSING),
    ((ConfigError, RequestError), Ending.USAGE),
    ((Unverified,), Ending.UNVERIFIED),
    ((BundleError, CheckpointError, DataError), Ending.DAMAGED),
    ((ParityError,), Ending.PARITY),
    ((BackendUnavailable, MissingExtra, QueueFull, DeadlineExceeded), Ending.UNAVAILABLE),
    ((BaseException,), Ending.FAILED),
]


def ending_of(error: BaseException) -> Ending:
    """How a command ends that fails with an error, whichever command it is.

    Args:
        error: of any class; what is no `GanError` and finds its files is FAILED.
    """
    return next(ending for kinds, ending in _ENDINGS if isinstance(error, kinds))


# Import name of an optional package -> the extra of this distribution that brings it.
EXTRAS = {
    "torch": "train",
    "sklearn": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "jinja2": "export",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "polygraphy": "layers",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "rtx",
    "cuda": "tensorrt",
    "cryptography": "signing",
    "huggingface_hub": "hub",
    "fsspec": "remote",
    "aiohttp": "remote",
    "av": "video",
    "pyarrow": "parquet",
    "lmdb": "lmdb",
    "reportlab": "figures",
    "ray": "ray",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "starlette": "serve",
    "uvicorn": "serve",
    "google": "serve-grpc",
    "grpc": "serve-grpc",
    "httptools": "serve",
}


def missing_extra(module: str, reason: ModuleNotFoundError | None = None) -> MissingExtra:
    """The error for an optional package that is not installed, with its pip command.

    Args:
        module: import name, one of the keys of EXTRAS.
        reason: what importing it raised; it may be there, and something that it needs not.

    Returns:
        The error, to be raised by the caller.
    """
    lacking = (reason and reason.name) or module
    needed = "" if lacking.partition(".")[0] == module else f", which {module} needs,"
    return MissingExtra(
        f"{lacking}{needed} is not installed; run: pip install 'ganpipe[{EXTRAS[module]}]'"
    )
