"""TensorRT and TensorRT-RTX engines, run through cuda-python: no torch, no pycuda."""

import importlib
import logging
import platform
import threading
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends import Backend, pick_precision
from ganinfer.bundle import Bundle, Engine, Model
from ganinfer.errors import BackendUnavailable, missing_extra

log = logging.getLogger(__name__)


def open(bundle: Bundle, device: str, precision: str) -> Backend:
    """Open the bundle's engine that fits this host; see `ganinfer.backends`."""
    engines = bundle.manifest.engines
    if not engines:
        raise BackendUnavailable(
            f"{bundle.path}: holds no TensorRT engine; export it with: gan export RUN --trt"
        )
    if device == "cpu":
        raise BackendUnavailable("tensorrt runs on NVIDIA GPUs; device 'cpu' was asked for")
    capability = _compute_capability(_cuda(), _index(device))
    fitting: list[Engine] = []
    refusals: list[str] = []
    for engine in engines:
        if refusal := _refusal(engine, capability):
            refusals.append(refusal)
        else:
            fitting.append(engine)
    if not fitting:
        raise BackendUnavailable(
            f"{bundle.path}: none of its {len(engines)} engines fits this host:"
            f" {'; '.join(dict.fromkeys(refusals))}. Export it with --trt on a host like this"
        )
    chosen = pick_precision(bundle, [e.precision for e in fitting], precision, ["fp16", "fp32"])
    # An engine for this very GPU before a portable one.
    entry = min((e for e in fitting if e.precision == chosen), key=lambda e: e.target == "portable")
    return TensorRTBackend(bundle.read(entry.path), entry, bundle.manifest.model, device)


class TensorRTBackend:
    """One engine, one context, one stream; see `ganinfer.backends.Backend`."""

    name = "tensorrt"
    fixed_batches = True

    def __init__(self, plan: bytes, entry: Engine, model: Model, device: str) -> None:
        """Deserialise a plan on a GPU ("auto", "cuda" or "cuda:<n>"); allocate its buffers.

        Raises:
            BackendUnavailable: there is no such GPU, or the plan was built for another GPU or
                version.
        """
        cuda, index = _cuda(), _index(device)
        if refusal := _refusal(entry, _compute_capability(cuda, index)):
            raise BackendUnavailable(f"tensorrt: {refusal}")
        trt = importlib.import_module(entry.product)
        self.device = f"cuda:{index}"
        self.precision = entry.precision
        self.details = {
            entry.product: trt.__version__,
            "engine": f"{entry.target}, batches {entry.profile[0]} to {entry.profile[2]}",
            "engine_status": entry.status,
        }
        self._cuda, self._index = cuda, index
        self._lock = threading.Lock()
        self._max_batch = entry.profile[2]
        _check(cuda.cudaSetDevice(index))
        self._runtime = trt.Runtime(product_logger(trt))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            words = "; ".join(product_logger(trt).messages) or "it gives no reason"
            raise BackendUnavailable(
                f"{entry.product} {trt.__version__} refuses the engine for {entry.target}: {words}."
                " Export it again on a host like this one"
            )
        self._context = self._engine.create_execution_context()
        (self._stream,) = _check(cuda.cudaStreamCreate())
        size, channels = model.resolution, model.channels
        self._image_shape = (size, size, channels)
        image_bytes = size * size * channels
        self._buffers = {
            "z": self._allocate(4 * model.z_dim),
            "images": self._allocate(image_bytes),
        }
        if model.classes:
            self._buffers["y"] = self._allocate(8)
        for name, address in self._buffers.items():
            self._context.set_tensor_address(name, int(address))

    def run(self, z: NDArray[np.float32], y: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """Z (N, Z), y (N,) or None -> images uint8 (N, H, W, C); N beyond the profile is split."""
        parts = [
            self._run(z[i : i + self._max_batch], None if y is None else y[i : i + self._max_batch])
            for i in range(0, len(z), self._max_batch)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, z: NDArray[np.float32], y: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        cuda = self._cuda
        images = np.empty((len(z), *self._image_shape), np.uint8)
        feed = {"z": np.ascontiguousarray(z)}
        if y is not None:
            feed["y"] = np.ascontiguousarray(y)
        with self._lock:
            _check(cuda.cudaSetDevice(self._index))  # the calling thread may be a new one
            for name, array in feed.items():
                kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
                _check(cuda.cudaMemcpyAsync(
                    self._buffers[name], array.ctypes.data, array.nbytes, kind, self._stream
                ))  # fmt: skip
                self._context.set_input_shape(name, array.shape)
            if not self._context.execute_async_v3(int(self._stream)):
                raise RuntimeError("TensorRT could not run the engine; see the log")
            kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            _check(cuda.cudaMemcpyAsync(
                images.ctypes.data, self._buffers["images"], images.nbytes, kind, self._stream
            ))  # fmt: skip
            _check(cuda.cudaStreamSynchronize(self._stream))
        return images

    def close(self) -> None:
        """Free the device memory."""
        for address in self._buffers.values():
            self._cuda.cudaFree(address)
        self._buffers.clear()
        self._cuda.cudaStreamDestroy(self._stream)
        del self._context, self._engine, self._runtime

    def _allocate(self, bytes_per_image: int) -> Any:
        (address,) = _check(self._cuda.cudaMalloc(bytes_per_image * self._max_batch))
        return address


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def host_platform() -> str:
    """Operating system and architecture, as in "linux-x86_64"."""
    return f"{platform.system()}-{platform.machine()}".lower()


def _cuda() -> ModuleType:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError:
        raise BackendUnavailable(f"tensorrt: {missing_extra('cuda')}") from None


def _compute_capability(cuda: ModuleType, index: int) -> str:
    """The name of what GPU `index` can do, such as "sm89"."""
    status, count = cuda.cudaGetDeviceCount()
    if int(status) or index >= count:
        reason = status.name if int(status) else f"it has {count} GPUs, numbered from 0"
        raise BackendUnavailable(
            f"tensorrt needs an NVIDIA GPU and driver; this host gives no cuda:{index} ({reason})."
            " Use backend='onnxruntime'"
        )
    attributes = cuda.cudaDeviceAttr
    (major,) = _check(
        cuda.cudaDeviceGetAttribute(attributes.cudaDevAttrComputeCapabilityMajor, index)
    )
    (minor,) = _check(
        cuda.cudaDeviceGetAttribute(attributes.cudaDevAttrComputeCapabilityMinor, index)
    )
    return f"sm{major}{minor}"


def _refusal(engine: Engine, capability: str) -> str | None:
    """Why an engine cannot run here, in words; None if it may."""
    here = host_platform()
    if engine.platform != here:
        return f"one was built for {engine.platform}, this is {here}"
    try:
        trt = importlib.import_module(engine.product)
    except ModuleNotFoundError:
        return str(missing_extra(engine.product))
    if trt.__version__ != engine.version:
        return (
            f"one was built with {engine.product} {engine.version}, {trt.__version__} is installed"
        )
    if engine.target not in ("portable", "current", capability):
        return f"one was built for {engine.target}, this GPU is {capability}"
    return None


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
