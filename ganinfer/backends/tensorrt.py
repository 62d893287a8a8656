"""TensorRT and TensorRT-RTX engines, run through cuda-python: no torch, no pycuda."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ganinfer.backends import _tensorrt_profile
from ganinfer.backends._base import Backend, SupportsDLPack, device_index, pick_precision
from ganinfer.backends._cuda import Gpu, compute_capability, load_cuda
from ganinfer.backends._profile import Profile
from ganinfer.backends._tensorrt_library import breadth, find_library, product_logger
from ganinfer.backends._tensorrt_rtx import RuntimeCache, runtime_config
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import Engine
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.model import Model
from ganinfer.errors import BackendUnavailable, Closed

log = logging.getLogger(__name__)


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
    for entry in sorted(engines, key=lambda engine: breadth(engine.target)):
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


@dataclass(frozen=True)
class _Tensor:
    """An input, or the images: pinned on the host, and on the GPU, for the largest batch."""

    host: NDArray[Any]
    address: int


@dataclass(frozen=True)
class _Bucket:
    """Batches of one size: a context that runs no others, and the graph of all its work, if any."""

    context: Any
    graph: Any


class TensorRTBackend:
    """One engine, a bucket for each batch size, one stream; see `ganinfer.backends.Backend`.

    Its inputs and images, pinned and on the GPU, have room for the engine's largest batch (256
    unless exported otherwise), whatever is asked of it.

    Once a bucket has run, nothing is allocated and no shape or address set: a batch is copied in,
    run and copied out by one launch of a CUDA graph, where the engine can be captured.
    """

    name = "tensorrt"
    parallel_runs = 1
    pads = True

    def __init__(self, plan: bytes, entry: Engine, model: Model, device: str) -> None:
        """Deserialise a plan on a GPU ("auto", "cuda" or "cuda:<n>"); allocate its memory.

        Raises:
            BackendUnavailable: there is no such GPU, or the plan was built for another GPU or
                version.
        """
        cuda, index = load_cuda(entry.product), device_index(device)
        capability = compute_capability(entry.product, index)
        trt = find_library(entry, capability)
        self.device = f"cuda:{index}"
        self.precision: str = entry.precision
        self.batch_sizes = bucket_sizes(entry.profiles)
        self.details = {
            entry.product: trt.__version__,
            "engine": f"{entry.target}, batches "
            + ", ".join(f"{low} to {high}" for low, _, high in entry.profiles),
            "engine_status": entry.status,
        }
        self._trt, self._entry = trt, entry
        self._no_graphs = False
        self._buckets: dict[int, _Bucket] = {}
        self._gpu = Gpu(cuda, index)
        try:
            with self._gpu.use():
                self._open(plan, model, capability)
        except BaseException:
            self.close()
            raise

    def _open(self, plan: bytes, model: Model, capability: str) -> None:
        trt, gpu, product = self._trt, self._gpu, self._entry.product
        self._tensors = {
            name: self._tensor(shape, dtype) for name, (shape, dtype) in _shapes(model).items()
        }
        self._images = self._tensors["images"]
        self._inputs = {name: t for name, t in self._tensors.items() if name != "images"}
        logger = product_logger(trt)
        logger.messages.clear()
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BackendUnavailable(
                f"{product} {trt.__version__} refuses the engine for {self._entry.target} on"
                f" {capability}: {'; '.join(logger.messages) or 'it gives no reason'}."
                " Export it again on a host like this one"
            )
        # Contexts that never run at once may work in the same memory.
        self._workspace_size = int(self._engine.device_memory_size_v2)
        self._workspace = gpu.allocate(max(self._workspace_size, 1))
        self._kernels: RuntimeCache | None = None
        self._context_options = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if product == "tensorrt_rtx":
            self._context_options = runtime_config(trt, self._engine)
            self._kernels = RuntimeCache(trt, self._context_options, plan, capability)
        gpu.resources.callback(self._release)  # after the graphs, before the memory
        self._open_bucket(self.batch_sizes[0])  # what cannot run is refused before it is chosen

    def _tensor(self, shape: tuple[int, ...], dtype: DTypeLike) -> _Tensor:
        host = self._gpu.pinned((self.batch_sizes[-1], *shape), dtype)
        return _Tensor(host, self._gpu.allocate(host.nbytes))

    def inspect(self) -> tuple[str, int]:
        """The library's own JSON of the engine's layers; the device memory of one context."""
        inspector = self._engine.create_engine_inspector()
        information: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return information, self._workspace_size

    def profile(self, inputs: Inputs, *, seconds: float) -> Profile:
        """Where the time of a batch goes; see `ganinfer.backends._profile.Profiled`."""
        if len(inputs) > self.batch_sizes[-1]:
            raise BackendUnavailable(
                f"the engine takes at most {self.batch_sizes[-1]} images a run, {len(inputs)} were"
                " asked for; measure smaller batches"
            )
        with self._gpu.use():
            size = self._fill(inputs)
            context = self._context(size)

            def run() -> None:
                self._queue(context, size)
                self._gpu.wait()

            return _tensorrt_profile.profile(self._trt, context, run, seconds, self.inspect()[0])

    def run(self, inputs: Inputs, *, out: Images | None = None, alone: bool = True) -> Images:  # noqa: ARG002
        """Images uint8 (N, H, W, C) of N inputs; N beyond the largest bucket is split."""
        if out is None:
            out = np.empty((len(inputs), *self._images.host.shape[1:]), np.uint8)
        step = self.batch_sizes[-1]
        for start in range(0, len(inputs), step):
            self._run(inputs.rows(start, start + step), out[start : start + step])
        return out

    def run_on_device(self, inputs: Inputs) -> SupportsDLPack:  # noqa: ARG002
        """Not yet: its images come by way of the host."""
        raise BackendUnavailable(
            "tensorrt hands out no memory of a GPU; use backend='onnxruntime', or sample()"
        )

    def _run(self, inputs: Inputs, out: Images) -> None:
        with self._gpu.use():
            size = self._fill(inputs)
            bucket = self._buckets.get(size) or self._open_bucket(size)
            if bucket.graph is None:
                self._queue(bucket.context, size)
            else:
                self._gpu.queue_graph(bucket.graph)
            self._gpu.wait()
            np.copyto(out, self._images.host[: len(inputs)])

    def _fill(self, inputs: Inputs) -> int:
        """Write a batch where it is uploaded from; the size of its bucket."""
        if self._gpu.closed:
            raise Closed("this backend is closed; open the bundle again")
        n, feed = len(inputs), inputs.feed()
        size = min(size for size in self.batch_sizes if size >= n)
        for name, tensor in self._inputs.items():
            tensor.host[:n] = feed[name]
            tensor.host[n:size] = feed[name][0]
        return size

    def _open_bucket(self, size: int) -> _Bucket:
        context = self._context(size)
        # The library allocates and compiles in a context's first run, which no graph can hold.
        self._queue(context, size)
        self._gpu.wait()
        if self._kernels is not None:
            self._kernels.keep()  # now: a service is seldom closed before it is ended
        self._buckets[size] = _Bucket(context, self._graph(context, size))
        return self._buckets[size]

    def _context(self, size: int) -> Any:
        """A context for batches of one size, its profile, memory and addresses set for good."""
        profile = profile_for(size, self._entry.profiles)
        context = self._engine.create_execution_context(self._context_options)
        if context is None or not context.set_optimization_profile_async(profile, self._gpu.stream):
            raise BackendUnavailable(
                f"the engine gives no context for batches of {size}; is another program using the"
                " GPU's memory?"
            )
        context.set_device_memory(self._workspace, self._workspace_size)
        for name, tensor in self._inputs.items():
            shape = (size, *tensor.host.shape[1:])
            if not context.set_input_shape(name, shape):
                raise BackendUnavailable(f"the engine takes no {name} of shape {shape}")
        for name, tensor in self._tensors.items():
            if not context.set_tensor_address(name, tensor.address):
                raise BackendUnavailable(f"the engine has no tensor {name!r}; export it again")
        return context

    def _queue(self, context: Any, size: int) -> None:
        """Copy in, run, copy out."""
        for tensor in self._inputs.values():
            self._gpu.queue_upload(tensor.host[:size], tensor.address)
        if not context.execute_async_v3(self._gpu.stream):
            raise BackendUnavailable("TensorRT could not run the engine; see the log")
        self._gpu.queue_download(self._images.address, self._images.host[:size])

    def _graph(self, context: Any, size: int) -> Any:
        """All the work of a batch as one graph; None once the engine has refused to be captured."""
        if self._no_graphs:
            return None
        try:
            # Only TensorRT-RTX says beforehand whether a context allocates memory as it runs.
            if self._kernels is not None and not context.is_stream_capturable(self._gpu.stream):
                raise BackendUnavailable("the engine cannot be captured; export it again")
            graph = self._gpu.capture(lambda: self._queue(context, size))
        except BackendUnavailable as refusal:
            self._no_graphs = True
            self.details["cuda_graphs"] = f"refused: {refusal}"
            log.warning("%s: goes on without CUDA graphs: %s", self.device, refusal)
            return None
        self.details["cuda_graphs"] = "used"
        return graph

    def close(self) -> None:
        """Free everything, once no other thread uses it."""
        self._gpu.close()

    def _release(self) -> None:
        """Let go of what uses the memory."""
        self._buckets.clear()
        self._context_options = self._kernels = self._engine = self._runtime = None


def _shapes(model: Model) -> dict[str, tuple[tuple[int, ...], DTypeLike]]:
    """Of one image: the engine's tensors by name, with their types."""
    shapes: dict[str, tuple[tuple[int, ...], DTypeLike]] = {
        "z": ((model.z_dim,), np.float32),
        "images": (model.shape, np.uint8),
    }
    if model.classes:
        index = model.class_input == "index"
        shapes["y"] = ((), np.int64) if index else ((len(model.classes),), np.float32)
    if model.truncation_input is not None:
        shapes["truncation"] = ((), np.float32)
    if (styles := model.style_input) is not None:
        shapes["w"] = ((styles.num_styles, styles.w_dim), np.float32)
        shapes["takes_w"] = ((), np.float32)
    return shapes


def bucket_sizes(profiles: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The batches that are run, rising: what profiles are tuned for, and powers of two in them."""
    powers = [1 << n for n in range(max(high for _, _, high in profiles).bit_length())]
    return tuple(
        sorted(
            {
                size
                for low, likeliest, high in profiles
                for size in (low, likeliest, high, *powers)
                if low <= size <= high
            }
        )
    )


def profile_for(size: int, profiles: Sequence[Sequence[int]]) -> int:
    """Which profile runs a bucket: of those that cover it, the one tuned for the nearest batch."""
    covering = [n for n, (low, _, high) in enumerate(profiles) if low <= size <= high]
    return min(covering, key=lambda n: abs(profiles[n][1] - size))
