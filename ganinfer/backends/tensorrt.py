"""TensorRT and TensorRT-RTX engines, run through cuda-python: no torch, no pycuda."""

import importlib
import logging
import math
import platform
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends import Backend, device_index, pick_precision
from ganinfer.bundle import Bundle
from ganinfer.errors import BackendUnavailable, RequestError, missing_extra
from ganinfer.images import Images
from ganinfer.inputs import Inputs
from ganinfer.manifest import Engine, Model

log = logging.getLogger(__name__)

# Targets of more than one kind of GPU; of "same-cc" an entry names the compute capability, too.
PORTABLE, AMPERE_PLUS, SAME_CC = "portable", "ampere+", "same-cc"


def precisions(bundle: Bundle) -> list[str]:
    """Those of its engines."""
    return list(dict.fromkeys(engine.precision for engine in bundle.manifest.engines))


def open(bundle: Bundle, device: str, precision: str) -> Backend:
    """Open the bundle's engine that fits this host; see `ganinfer.backends`."""
    engines = bundle.manifest.engines
    if not engines:
        raise BackendUnavailable(
            f"{bundle.path}: holds no TensorRT engine; export it with: gan export RUN --trt"
        )
    if device == "cpu":
        raise BackendUnavailable("tensorrt runs on NVIDIA GPUs; device 'cpu' was asked for")
    chosen = pick_precision(bundle, precisions(bundle), precision, ["fp16", "fp32"])
    refusals: list[str] = []
    for entry in sorted(engines, key=lambda engine: _breadth(engine.target)):
        if entry.precision == chosen:
            try:
                return TensorRTBackend(
                    bundle.read(entry.path), entry, bundle.manifest.model, device
                )
            except BackendUnavailable as refusal:
                refusals.append(str(refusal))
    raise BackendUnavailable(
        f"{bundle.path}: none of its {chosen} engines opens here:"
        f" {'; '.join(dict.fromkeys(refusals))}"
    )


class TensorRTBackend:
    """One engine, a context for each profile, one stream; see `ganinfer.backends.Backend`."""

    name = "tensorrt"
    parallel_runs = 1
    batch_sizes = tuple(1 << n for n in range(13))
    pads = True

    def __init__(self, plan: bytes, entry: Engine, model: Model, device: str) -> None:
        """Deserialise a plan on a GPU ("auto", "cuda" or "cuda:<n>"); allocate its buffers.

        Raises:
            BackendUnavailable: there is no such GPU, or the plan was built for another GPU or
                version.
        """
        cuda, index = _cuda(entry.product), device_index(device)
        capability = compute_capability(entry.product, index)
        trt = _library(entry, capability)
        self.device = f"cuda:{index}"
        self.precision: str = entry.precision
        self.details = {
            entry.product: trt.__version__,
            "engine": f"{entry.target}, batches "
            + ", ".join(f"{low} to {high}" for low, _, high in entry.profiles),
            "engine_status": entry.status,
        }
        self._trt, self._cuda, self._index = trt, cuda, index
        self._lock = threading.Lock()
        self._profiles = entry.profiles
        self._max_batch = max(largest for _, _, largest in entry.profiles)
        self._image_shape = (model.resolution, model.resolution, model.channels)
        self._buffers: dict[str, Any] = {}
        self._contexts: list[Any] = []
        self._stream: Any = None
        _check(cuda.cudaSetDevice(index))
        logger = product_logger(trt)
        logger.messages.clear()
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendUnavailable(
                f"{entry.product} {trt.__version__} refuses the engine for {entry.target} on"
                f" {capability}: {'; '.join(logger.messages) or 'it gives no reason'}."
                " Export it again on a host like this one"
            )
        try:
            self._allocate(model)
            self._contexts = [self._context(index) for index in range(len(self._profiles))]
        except BackendUnavailable:
            self.close()
            raise

    def _allocate(self, model: Model) -> None:
        """A stream, and device memory for the largest batch of each input and output."""
        (self._stream,) = _check(self._cuda.cudaStreamCreate())
        sizes = {"z": 4 * model.z_dim, "images": math.prod(self._image_shape)}
        if model.classes:
            sizes["y"] = 8 if model.class_input == "index" else 4 * len(model.classes)
        if model.truncation_input is not None:
            sizes["truncation"] = 4
        for name, bytes_per_image in sizes.items():
            (address,) = _check(self._cuda.cudaMalloc(bytes_per_image * self._max_batch))
            self._buffers[name] = address

    def _context(self, profile: int) -> Any:
        """What runs the batches of one profile: it may hold no other while work is under way."""
        context = self._engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(
            profile, int(self._stream)
        ):
            raise BackendUnavailable(
                f"the engine gives no context for batches {self._profiles[profile]}; is another"
                " program using the GPU's memory?"
            )
        for name, address in self._buffers.items():
            if not context.set_tensor_address(name, int(address)):
                raise BackendUnavailable(f"the engine has no tensor {name!r}; export it again")
        return context

    def inspect(self) -> tuple[str, int]:
        """The library's own JSON of the engine's layers; the device memory of one context."""
        inspector = self._engine.create_engine_inspector()
        information: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return information, int(self._engine.device_memory_size_v2)

    def run(self, inputs: Inputs, *, out: Images | None = None, alone: bool = True) -> Images:  # noqa: ARG002
        """Images uint8 (N, H, W, C) of N inputs; N beyond the profiles is split."""
        parts = [
            self._run(inputs.rows(start, start + self._max_batch))
            for start in range(0, len(inputs), self._max_batch)
        ]
        if out is None and len(parts) == 1:
            return parts[0]
        return np.concatenate(parts, out=out)

    def _run(self, inputs: Inputs) -> NDArray[np.uint8]:
        cuda, n = self._cuda, len(inputs)
        profile = profile_for(n, self._profiles)
        inputs = inputs.padded(self._profiles[profile][0])
        images = np.empty((len(inputs), *self._image_shape), np.uint8)
        feed = {name: np.ascontiguousarray(array) for name, array in inputs.feed().items()}
        to_device = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        to_host = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        with self._lock:
            if not self._buffers:
                raise RequestError("this backend is closed; open the bundle again")
            _check(cuda.cudaSetDevice(self._index))  # the calling thread may be a new one
            context = self._contexts[profile]
            for name, array in feed.items():
                target = self._buffers[name]
                _check(
                    cuda.cudaMemcpyAsync(
                        target, array.ctypes.data, array.nbytes, to_device, self._stream
                    )
                )
                if not context.set_input_shape(name, array.shape):
                    raise BackendUnavailable(f"the engine takes no {name} of shape {array.shape}")
            if not context.execute_async_v3(int(self._stream)):
                raise BackendUnavailable("TensorRT could not run the engine; see the log")
            source = self._buffers["images"]
            _check(
                cuda.cudaMemcpyAsync(
                    images.ctypes.data, source, images.nbytes, to_host, self._stream
                )
            )
            _check(cuda.cudaStreamSynchronize(self._stream))
        return images[:n]

    def close(self) -> None:
        """Free the device memory, once no other thread uses it."""
        with self._lock:
            for address in self._buffers.values():
                self._cuda.cudaFree(address)
            self._buffers.clear()
            if self._stream is not None:
                self._cuda.cudaStreamDestroy(self._stream)
            self._contexts.clear()
            self._engine = self._runtime = self._stream = None


def profile_for(batch: int, profiles: Sequence[Sequence[int]]) -> int:
    """Which profile runs a batch of this size, no larger than the largest of all.

    Of those that cover it, the one whose likeliest batch is nearest; if it falls between two, the
    next one up, for which it is padded.
    """
    covering = [n for n, (low, _, high) in enumerate(profiles) if low <= batch <= high]
    if covering:
        return min(covering, key=lambda n: abs(profiles[n][1] - batch))
    above = [n for n, (low, _, _) in enumerate(profiles) if low > batch]
    return min(above, key=lambda n: profiles[n][0])


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


def _breadth(target: str) -> int:
    """An engine for this very GPU comes before one for many."""
    return 2 if target == PORTABLE else int(target == AMPERE_PLUS)


def compute_capability(product: str, index: int = 0) -> str:
    """What GPU `index` can do, by its name: "sm89".

    Raises:
        BackendUnavailable: there is no such GPU, driver or cuda-python; product names the extra.
    """
    cuda = _cuda(product)
    status, count = cuda.cudaGetDeviceCount()
    if int(status) or index >= count:
        reason = status.name if int(status) else f"it has {count} GPUs, numbered from 0"
        raise BackendUnavailable(
            f"tensorrt needs an NVIDIA GPU and driver; this host gives no cuda:{index} ({reason})."
            " Use backend='onnxruntime'"
        )
    wanted = cuda.cudaDeviceAttr
    (major,) = _check(cuda.cudaDeviceGetAttribute(wanted.cudaDevAttrComputeCapabilityMajor, index))
    (minor,) = _check(cuda.cudaDeviceGetAttribute(wanted.cudaDevAttrComputeCapabilityMinor, index))
    return f"sm{major}{minor}"


def _cuda(product: str) -> ModuleType:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError:
        raise BackendUnavailable(f"cuda-python: {missing_extra(product)}") from None
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"cuda-python cannot be loaded: {error}") from None


def _library(entry: Engine, capability: str) -> ModuleType:
    """The library that an engine needs, if the engine fits it and this host."""
    here = host_platform()
    if entry.platform != here:
        raise BackendUnavailable(f"one was built for {entry.platform}, this is {here}")
    if not fits(entry.target, capability):
        raise BackendUnavailable(f"one was built for {entry.target}, this GPU is {capability}")
    try:
        trt = importlib.import_module(entry.product)
    except ModuleNotFoundError:
        raise BackendUnavailable(str(missing_extra(entry.product))) from None
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"{entry.product} cannot be loaded: {error}") from None
    if trt.__version__ != entry.version:
        raise BackendUnavailable(
            f"one was built with {entry.product} {entry.version}, {trt.__version__} is installed"
        )
    return trt


def _check(result: Any) -> tuple[Any, ...]:
    """The values of a CUDA call, without its status."""
    status, *values = result
    if int(status):
        raise BackendUnavailable(f"CUDA: {status.name}; is another program using the GPU's memory?")
    return tuple(values)


_loggers: dict[str, Any] = {}


def product_logger(trt: ModuleType) -> Any:
    """The library keeps the first logger it is given for the whole process; so do we."""
    if trt.__name__ not in _loggers:

        class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
            """Passes messages on to logging, and keeps those of errors."""

            def __init__(self) -> None:
                trt.ILogger.__init__(self)
                self.messages: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.Severity.ERROR:
                    self.messages.append(message)
                log.debug("%s: %s", severity, message)

        _loggers[trt.__name__] = Logger()
    return _loggers[trt.__name__]
