"""A GPU for tests, simulated: `Cuda` in place of cuda.bindings.runtime, `library` of tensorrt_rtx.

Its memory is the host's, where every address is checked. What is queued on a stream is done when
somebody waits for the stream, no sooner. A plan is an ONNX file, which onnxruntime runs.
"""

# ruff: noqa: N802, N803, N815 (the names are those of CUDA)

import ctypes
import enum
import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime

Work = Callable[[], None]

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class Attribute(enum.IntEnum):
    cudaDevAttrComputeCapabilityMajor = 75
    cudaDevAttrComputeCapabilityMinor = 76


class CopyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class CaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class Stream:
    def __init__(self) -> None:
        self.queue: list[Work] = []
        self.captured: list[Work] | None = None

    def add(self, work: Work) -> None:
        (self.queue if self.captured is None else self.captured).append(work)


class Cuda:
    """The CUDA runtime of a host with one GPU, sm89.

    Attributes:
        calls: how often each was called.
        failures: call -> status; the nth call of all that can fail where the key is a number.
        live: what is allocated or created and neither freed nor destroyed, by address.
    """

    cudaStreamNonBlocking = 1
    cudaError_t = Status
    cudaDeviceAttr = Attribute
    cudaMemcpyKind = CopyKind
    cudaStreamCaptureMode = CaptureMode

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.failures: dict[str | int, Status] = {}
        self.live: dict[int, object] = {}
        self.device_memory: set[int] = set()
        self.last_error = Status.cudaSuccess
        self.num_fallible = 0
        self.thread = threading.local()  # its device, 0 at first
        self._handles = itertools.count(1, 2)  # odd, as no address is

    def fails(self, name: str) -> Status:
        """Note a call; the status that it must return."""
        assert name.endswith("Device") or getattr(self.thread, "device", 0) == 0
        self.calls[name] += 1
        self.num_fallible += 1
        status = self.failures.get(name, self.failures.get(self.num_fallible, Status.cudaSuccess))
        self.last_error = status or self.last_error
        return status

    def cudaGetDeviceCount(self):
        return Status.cudaSuccess, 1

    def cudaDeviceGetAttribute(self, attr, device):
        return Status.cudaSuccess, 8 if attr == Attribute.cudaDevAttrComputeCapabilityMajor else 9

    def cudaGetLastError(self):
        error, self.last_error = self.last_error, Status.cudaSuccess
        return (error,)

    def cudaGetDevice(self):
        return self.fails("cudaGetDevice"), getattr(self.thread, "device", 0)

    def cudaSetDevice(self, device):
        if status := self.fails("cudaSetDevice"):
            return (status,)
        self.thread.device = device
        return (Status.cudaSuccess,)

    def cudaMalloc(self, size):
        return self._allocate("cudaMalloc", size)

    def cudaFree(self, devPtr):
        self.device_memory.remove(devPtr)
        return self._free(devPtr)

    def cudaMallocHost(self, size):
        return self._allocate("cudaMallocHost", size)

    def cudaFreeHost(self, ptr):
        return self._free(ptr)

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == self.cudaStreamNonBlocking
        return self._create("cudaStreamCreateWithFlags", Stream())

    def cudaStreamDestroy(self, stream):
        return self._free(stream)

    def cudaStreamSynchronize(self, stream):
        if status := self.fails("cudaStreamSynchronize"):
            return (status,)
        found = self.stream(stream)
        assert found.captured is None, "nobody may wait for a stream while it is captured"
        while found.queue:
            found.queue.pop(0)()
        return (Status.cudaSuccess,)

    def cudaMemcpyAsync(self, dst, src, count, kind, stream):
        if status := self.fails("cudaMemcpyAsync"):
            return (status,)
        device, host = (dst, src) if kind == CopyKind.cudaMemcpyHostToDevice else (src, dst)
        assert device in self.device_memory
        assert host in self.live
        assert host not in self.device_memory

        def copy() -> None:
            for address in (dst, src):
                assert count <= len(self.live[address])
            ctypes.memmove(dst, src, count)

        self.stream(stream).add(copy)
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        assert mode == CaptureMode.cudaStreamCaptureModeThreadLocal
        if status := self.fails("cudaStreamBeginCapture"):
            return (status,)
        found = self.stream(stream)
        assert found.captured is None
        assert not found.queue
        found.captured = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        found = self.stream(stream)
        captured, found.captured = found.captured, None
        status, graph = self._create("cudaStreamEndCapture", captured)
        return status, graph

    def cudaGraphInstantiate(self, graph, flags):
        assert flags == 0
        return self._create("cudaGraphInstantiate", self.live[graph])

    def cudaGraphDestroy(self, graph):
        return self._free(graph)

    def cudaGraphExecDestroy(self, graphExec):
        return self._free(graphExec)

    def cudaGraphLaunch(self, graphExec, stream):
        if status := self.fails("cudaGraphLaunch"):
            return (status,)
        for work in self.live[graphExec]:
            self.stream(stream).add(work)
        return (Status.cudaSuccess,)

    def stream(self, handle) -> Stream:
        found = self.live[int(handle)]
        assert isinstance(found, Stream)
        return found

    def memory(self, address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """What lies at an address of the device."""
        assert address in self.device_memory
        array = np.frombuffer(self.live[address], dtype, count=int(np.prod(shape)))
        return array.reshape(shape)

    def _allocate(self, name, size):
        assert size > 0
        status, address = self._create(name, (ctypes.c_ubyte * size)())
        if name == "cudaMalloc" and not status:
            self.device_memory.add(address)
        return status, address

    def _create(self, name, thing):
        if status := self.fails(name):
            return status, None
        memory = isinstance(thing, ctypes.Array)
        address = ctypes.addressof(thing) if memory else next(self._handles)
        self.live[address] = thing
        return Status.cudaSuccess, address

    def _free(self, address):
        del self.live[address]
        return (Status.cudaSuccess,)


class Strategy(enum.IntEnum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class Specialization(enum.IntEnum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class IRuntimeCache:
    """Its kernels: the shapes that have run."""

    def __init__(self) -> None:
        self._kernels: set[str] = set()

    def deserialize(self, blob) -> bool:
        magic, *kernels = bytes(blob).decode().split()
        if magic != "kernels":
            return False
        self._kernels = set(kernels)
        return True

    def serialize(self) -> bytes:
        return " ".join(["kernels", *sorted(self._kernels)]).encode()


class IRuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY

    def __init__(self) -> None:
        self._strategy = Strategy.STATIC
        self._cache: IRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy) -> None:
        self._strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache) -> bool:
        self._cache = cache
        return True


class IProfiler:
    def __init__(self) -> None:
        self._made = True

    def report_layer_time(self, layer_name, ms) -> None:
        raise NotImplementedError


class EngineInspector:
    """Tells a layer for each node of the ONNX file."""

    def __init__(self, plan: bytes) -> None:
        self._graph = onnx.load_from_string(plan).graph

    def _names(self) -> list[str]:
        return [f"{node.op_type}_{number}" for number, node in enumerate(self._graph.node)]

    def get_engine_information(self, format) -> str:  # noqa: A002
        assert format == "json"
        layers = [
            {
                "Name": name,
                "LayerType": node.op_type,
                "Inputs": [_tensor(name) for name in node.input],
                "Outputs": [_tensor(name) for name in node.output],
                "Metadata": f"[ONNX Layer: {node.name}]",
            }
            for name, node in zip(self._names(), self._graph.node, strict=True)
        ]
        return json.dumps({"Layers": layers})


def _tensor(name: str) -> dict:
    return {"Name": name, "Dimensions": [4, 8], "Format/Datatype": "Channel major FP16 format"}


class IExecutionContext:
    """Runs an ONNX file as an engine runs; asserts what the real one would fall over."""

    profiler: IProfiler | None = None

    def __init__(self, engine: "ICudaEngine", config: IRuntimeConfig | None) -> None:
        self._engine, self._config = engine, config
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._workspace = 0
        self._profile: int | None = None
        self._has_run = False

    def set_optimization_profile_async(self, profile_index, stream_handle) -> bool:
        self._engine._cuda.stream(stream_handle)
        self._profile = profile_index
        return True

    def set_device_memory(self, memory, size) -> None:
        assert size >= self._engine.device_memory_size_v2
        self._workspace = memory

    def set_input_shape(self, name, shape) -> bool:
        low, _, high = self._engine._profiles[self._profile]
        self._shapes[name] = shape
        return low <= shape[0] <= high

    def set_tensor_address(self, name, memory) -> bool:
        self._addresses[name] = memory
        return name in {*self._engine._types, "images"}

    def is_stream_capturable(self, stream) -> bool:
        specialization = self._config.dynamic_shapes_kernel_specialization_strategy
        return self._engine._capturable and specialization == Specialization.EAGER

    def execute_async_v3(self, stream_handle) -> bool:
        cuda, engine = self._engine._cuda, self._engine
        stream = cuda.stream(stream_handle)
        if cuda.fails("execute_async_v3"):
            return False
        assert self._has_run or stream.captured is None, "it compiles in its first run"
        self._has_run = True
        if self._config is not None:
            self._config._cache._kernels.add(str(self._shapes["z"][0]))

        def execute() -> None:
            cuda.memory(self._workspace, (engine.device_memory_size_v2,), np.uint8)[:] = 0xAA
            feed = {
                name: cuda.memory(self._addresses[name], self._shapes[name], dtype).copy()
                for name, dtype in engine._types.items()
            }
            (images,) = engine._session.run(None, feed)
            cuda.memory(self._addresses["images"], images.shape, np.uint8)[:] = images
            if self.profiler is not None:
                assert self.profiler._made, "its base is to be made, too"
                for name in engine.create_engine_inspector()._names():
                    self.profiler.report_layer_time(name, 0.5)

        stream.add(execute)
        return True


class ICudaEngine:
    device_memory_size_v2 = 4096

    def __init__(self, cuda: Cuda, plan: bytes, profiles, capturable: bool, rtx: bool) -> None:
        self._cuda, self._profiles = cuda, profiles
        self._capturable, self._rtx = capturable, rtx
        self._session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        self._types = {i.name: TYPES[i.type] for i in self._session.get_inputs()}
        self._plan = plan

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self._plan)

    def create_runtime_config(self) -> IRuntimeConfig:
        return IRuntimeConfig()

    def create_execution_context(self, how) -> IExecutionContext | None:
        if self._cuda.fails("create_execution_context"):
            return None
        assert isinstance(how, IRuntimeConfig) is self._rtx
        assert getattr(how, "_strategy", how) == Strategy.USER_MANAGED
        return IExecutionContext(self, how if self._rtx else None)


class ILogger:
    Severity = SimpleNamespace(ERROR=1)


def library(name: str, cuda: Cuda, profiles, *, capturable: bool = True) -> SimpleNamespace:
    """The module `tensorrt` or `tensorrt_rtx`, on a host whose GPU is that of `cuda`."""

    class Runtime:
        def __init__(self, logger) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine) -> ICudaEngine | None:
            if cuda.fails("deserialize_cuda_engine"):
                return None
            rtx = name == "tensorrt_rtx"
            return ICudaEngine(cuda, serialized_engine, profiles, capturable, rtx)

    return SimpleNamespace(
        __name__=name,
        __version__="1.2.3.4",
        ILogger=ILogger,
        IProfiler=IProfiler,
        EngineInspector=EngineInspector,
        LayerInformationFormat=SimpleNamespace(JSON="json"),
        Runtime=Runtime,
        ICudaEngine=ICudaEngine,
        IExecutionContext=IExecutionContext,
        IRuntimeConfig=IRuntimeConfig,
        IRuntimeCache=IRuntimeCache,
        ExecutionContextAllocationStrategy=Strategy,
        DynamicShapesKernelSpecializationStrategy=Specialization,
    )
