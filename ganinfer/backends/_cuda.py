"""One GPU through cuda-python: a stream, memory on both sides, graphs; every call is checked."""

import ctypes
import importlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ganinfer.errors import BackendUnavailable, missing_extra

# A capture by onnxruntime is one for the whole process: what any thread allocates, frees or waits
# for on a GPU meanwhile fails, and so does the capture. So whoever does such things holds a lock.
_capturing = threading.Lock()
# Reentrant: garbage may be collected, and freed, while its thread holds them all.
_locks: "weakref.WeakSet[threading.RLock]" = weakref.WeakSet()


def work_lock() -> "threading.RLock":
    """A lock for its owner to hold during all work on a GPU; then nobody captures a graph."""
    with _capturing:
        lock = threading.RLock()
        _locks.add(lock)
    return lock


@contextmanager
def gpus_at_rest() -> Iterator[bool]:
    """Keep everybody from the GPUs; or say that somebody is at work there, and hold nobody up."""
    with ExitStack() as held:
        at_rest = _taken(_capturing, held) and all(_taken(lock, held) for lock in list(_locks))
        if not at_rest:
            held.close()
        yield at_rest


def _taken(lock: "threading.Lock | threading.RLock", held: ExitStack) -> bool:
    taken = lock.acquire(blocking=False)
    if taken:
        held.callback(lock.release)
    return taken


def _after_fork() -> None:
    """Who held a lock is not here to release it."""
    global _capturing, _locks
    _capturing, _locks = threading.Lock(), weakref.WeakSet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
    if reason := _why_absent(cuda, index):
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


def _why_absent(cuda: ModuleType, index: int) -> str:
    """Why there is no such GPU; "" if there is."""
    try:
        status, count = cuda.cudaGetDeviceCount()
    except RuntimeError as error:  # an older cuda-python, where there is no driver
        return str(error)
    if int(status):
        return str(status.name)
    return "" if index < count else f"it has {count} GPUs, numbered from 0"


class Gpu:
    """What one owner takes of a GPU, for any thread that is in `use`; freed once it is forgotten.

    Attributes:
        stream: where all work is queued.
        resources: what `close` frees, the newest first.
        closed: whether that was done.
    """

    closed = True  # as long as there is nothing to free

    def __init__(self, cuda: ModuleType, index: int) -> None:
        """Create the stream.

        Raises:
            BackendUnavailable: CUDA fails, as does every method.
        """
        self._cuda, self._index, self._pid = cuda, index, os.getpid()
        self._lock = work_lock()
        self.resources = ExitStack()
        with self.use():
            # One that minds the default stream would spoil what another library captures.
            stream = self._checked(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking))
        self.resources.callback(cuda.cudaStreamDestroy, stream)
        self.stream = int(stream)
        self.closed = False

    @contextmanager
    def use(self) -> Iterator[None]:
        """The calling thread alone works here; its calls go to this GPU, later ones as before."""
        with self._lock:
            before = self._checked(self._cuda.cudaGetDevice())
            self._checked(self._cuda.cudaSetDevice(self._index))
            try:
                yield
            finally:
                self._cuda.cudaSetDevice(before)

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
        """Free everything, once; nothing of it may be used any more. A forked process has none."""
        if os.getpid() != self._pid:
            return
        with self._lock, ExitStack() as device:
            if self.closed:
                return
            self.closed = True
            with suppress(BackendUnavailable):  # what has failed for good is freed nevertheless
                device.enter_context(self.use())
                self.wait()
            self.resources.close()

    def __del__(self) -> None:
        if not self.closed and not sys.is_finalizing():
            self.close()

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
