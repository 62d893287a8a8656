"""One GPU through cuda-python: a stream, memory on both sides, graphs; every call is checked."""

import ctypes
import importlib
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ganinfer.errors import BackendUnavailable, missing_extra


def load_cuda(product: str) -> ModuleType:
    """The CUDA runtime.

    Raises:
        BackendUnavailable: there is no cuda-python, which the product's extra brings.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ModuleNotFoundError:
        raise BackendUnavailable(f"cuda-python: {missing_extra(product)}") from None
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"cuda-python cannot be loaded: {error}") from None


def compute_capability(product: str, index: int = 0) -> str:
    """What GPU `index` can do, by its name: "sm89".

    Raises:
        BackendUnavailable: there is no such GPU, driver or cuda-python; product names the extra.
    """
    cuda = load_cuda(product)
    status, count = cuda.cudaGetDeviceCount()
    if int(status) or index >= count:
        reason = status.name if int(status) else f"it has {count} GPUs, numbered from 0"
        raise BackendUnavailable(
            f"tensorrt needs an NVIDIA GPU and driver; this host gives no cuda:{index} ({reason})."
            " Use backend='onnxruntime'"
        )
    major, minor = (
        _checked(cuda, cuda.cudaDeviceGetAttribute(attribute, index))
        for attribute in (
            cuda.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor,
            cuda.cudaDeviceAttr.cudaDevAttrComputeCapabilityMinor,
        )
    )
    return f"sm{major}{minor}"


class Gpu:
    """What one owner takes of a GPU. It may be used from any thread, after `use`, by one at a time.

    Attributes:
        stream: where all work is queued.
        resources: what `close` frees, the newest first.
    """

    def __init__(self, cuda: ModuleType, index: int) -> None:
        """Create the stream.

        Raises:
            BackendUnavailable: CUDA fails, as does every method.
        """
        self._cuda, self._index = cuda, index
        self.resources = ExitStack()
        self.use()
        # One that minds the default stream would spoil another library's work as it is captured.
        stream = self._checked(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        self.resources.callback(cuda.cudaStreamDestroy, stream)
        self.stream = int(stream)

    def use(self) -> None:
        """Make the calling thread's calls go to this GPU."""
        self._checked(self._cuda.cudaSetDevice(self._index))

    def allocate(self, num_bytes: int) -> int:
        """The address of memory on the GPU, aligned for anything."""
        address = self._checked(self._cuda.cudaMalloc(num_bytes))
        self.resources.callback(self._cuda.cudaFree, address)
        return int(address)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Zeros on the host, which the GPU reads and writes while the host goes on."""
        num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = self._checked(self._cuda.cudaMallocHost(num_bytes))
        self.resources.callback(self._cuda.cudaFreeHost, address)
        memory = (ctypes.c_ubyte * num_bytes).from_address(int(address))
        array: NDArray[Any] = np.ctypeslib.as_array(memory).view(dtype).reshape(shape)
        array.fill(0)
        return array

    def queue_upload(self, host: NDArray[Any], address: int) -> None:
        """Copy a pinned array to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._queue_copy(address, host.ctypes.data, host.nbytes, kind)

    def queue_download(self, address: int, host: NDArray[Any]) -> None:
        """Copy from the GPU into a pinned array."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._queue_copy(host.ctypes.data, address, host.nbytes, kind)

    def capture(self, queue: Callable[[], None]) -> Any:
        """What `queue` queues as a graph, for `queue_graph`; none of it is run.

        Raises:
            BackendUnavailable: it cannot be captured. The stream is as it was before.
        """
        cuda = self._cuda
        # Other threads may go on allocating memory meanwhile.
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._checked(cuda.cudaStreamBeginCapture(self.stream, mode))
        try:
            queue()
        except BaseException:
            status, part = cuda.cudaStreamEndCapture(self.stream)
            if not int(status):
                cuda.cudaGraphDestroy(part)
            raise
        captured = self._checked(cuda.cudaStreamEndCapture(self.stream))
        try:
            graph = self._checked(cuda.cudaGraphInstantiate(captured, 0))
        finally:
            cuda.cudaGraphDestroy(captured)
        self.resources.callback(cuda.cudaGraphExecDestroy, graph)
        return graph

    def queue_graph(self, graph: Any) -> None:
        """Run all that a graph holds."""
        self._checked(self._cuda.cudaGraphLaunch(graph, self.stream))

    def wait(self) -> None:
        """Until all that was queued is done."""
        self._checked(self._cuda.cudaStreamSynchronize(self.stream))

    def close(self) -> None:
        """Free everything, once; nothing of it may be used any more."""
        self._cuda.cudaSetDevice(self._index)
        self._cuda.cudaStreamSynchronize(self.stream)
        self.resources.close()

    def _queue_copy(self, target: int, source: int, num_bytes: int, kind: Any) -> None:
        self._checked(self._cuda.cudaMemcpyAsync(target, source, num_bytes, kind, self.stream))

    def _checked(self, result: tuple[Any, ...]) -> Any:
        return _checked(self._cuda, result)


def _checked(cuda: ModuleType, result: tuple[Any, ...]) -> Any:
    """The value of a CUDA call, if it has one, without its status."""
    status, *values = result
    if int(status):
        cuda.cudaGetLastError()  # or it would be found again by a call that has not failed
        remedy = "open the bundle again, if need be in a new process"
        if status == cuda.cudaError_t.cudaErrorMemoryAllocation:
            remedy = "is another program using the GPU's memory?"
        raise BackendUnavailable(f"CUDA: {status.name}; {remedy}")
    return values[0] if values else None
