"""onnxruntime on the CPU or on CUDA."""

import contextlib
import functools
import logging
import re
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends import _onnxruntime_profile
from ganinfer.backends._base import Backend, SupportsDLPack, device_index, pick_precision
from ganinfer.backends._cuda import work_lock
from ganinfer.backends._onnxruntime_bound import BoundSession
from ganinfer.backends._onnxruntime_cuda import CPU, CUDA, Provider, cuda_attempts, prepare_gpu
from ganinfer.backends._profile import Profile
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.large_onnx import LargeOnnx
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs
from ganinfer.errors import BackendUnavailable, Closed, GanError, missing_extra
from ganinfer.host.limits import usable_cpus
from ganinfer.host.machine import gpu_present
from ganinfer.host.mapped import mapped
from ganinfer.host.telemetry import quiet_onnxruntime

log = logging.getLogger(__name__)

# onnxruntime's CPU crashes in it (1.31) when it opens attention in half precision.
CRASH_IN_HALF = ("MatmulTransposeFusion",)
_SPINS_FOR_A_WHILE = (1, 31)  # older ones spin for as long as they like, or not at all
_SPIN_US = "500"
_PACKS_INTO_FILES = (1, 31)  # older ones may, and have not been tried
_LAID_OUT = "graph.onnx"
# Each has memory of its own, and a CUDA graph.
GPU_BATCH_SIZES = tuple(1 << n for n in range(13))


def precisions(bundle: Bundle) -> list[str]:
    """Those of its ONNX files."""
    return [graph.precision for graph in bundle.manifest.graphs]


def open(bundle: Bundle, device: str, precision: str) -> Backend:
    """Open a bundle's ONNX file; see `ganinfer.backends`."""
    available = precisions(bundle)
    places = [device if device == "cpu" else f"cuda:{device_index(device)}"]
    if device == "auto":
        places = ["cuda:0", "cpu"] if CUDA in installed()[1] and gpu_present() else ["cpu"]
    for place in places:
        preferred = ["fp32", "fp16"] if place == "cpu" else ["fp16", "fp32"]
        chosen = pick_precision(bundle, available, precision, preferred)
        try:
            return _open_at(bundle, place, chosen)
        except BackendUnavailable as refusal:
            if place == places[-1]:
                raise
            log.warning("%s: %s; using the CPU", bundle.path, refusal)
    raise AssertionError("there is always a last place")


def _open_at(bundle: Bundle, place: str, precision: str) -> Backend:
    graph = bundle.read_graph(precision)
    if place == "cpu" and (laid_out := _laid_out(graph, precision)):
        try:
            return OnnxRuntimeBackend(laid_out, place, precision)
        except BackendUnavailable as refusal:  # as where somebody empties the cache just now
            log.warning("%s; weights are not shared with other processes", refusal)
    return OnnxRuntimeBackend(graph, place, precision)


class OnnxRuntimeBackend:
    """Sessions over one ONNX file; see `ganinfer.backends.Backend`.

    On a CPU there are two: many runs at once are soonest done with a thread each, one run with all.
    A `LargeOnnx` has one, for each holds the weights. On a GPU there is one, bound to its memory.
    """

    name = "onnxruntime"

    def __init__(
        self,
        graph: bytes | Path,
        device: str,
        precision: str,
        *,
        providers: Sequence[Provider] | None = None,
    ) -> None:
        """Load a graph.

        Args:
            graph: an ONNX file; or, for a CPU, where `_laid_out` has put it.
            device: "cpu" or "cuda:<n>", present.
            precision: of the graph, for the record.
            providers: best first; by default the CPU, or CUDA and the CPU, with CUDA graphs if
                the session takes them.
        """
        ort = _import()
        self.device = device
        self.precision = precision
        on_cpu = device == "cpu"
        self._threads = usable_cpus()
        self.parallel_runs = self._threads if on_cpu and not isinstance(graph, LargeOnnx) else 1
        self.batch_sizes = () if on_cpu else GPU_BATCH_SIZES
        self.pads = not on_cpu
        self._lock = threading.Lock()
        self._sessions: dict[int, Any] = {}  # on a CPU, by number of threads
        self._bound: BoundSession | None = None  # on a GPU
        self._closed = False
        self.details = {"onnxruntime": ort.__version__, "threads": str(self._threads)}
        if on_cpu:
            self._open = functools.partial(
                _open_session, ort, graph, providers or [CPU], without=_crashes(precision)
            )
            self.details["provider"] = self._session(self._threads).get_providers()[0]
            if isinstance(graph, Path):  # both now: the file may go, what is mapped stays
                self._session(1)
                self.details["weights"] = "mapped"
        else:
            assert isinstance(graph, bytes)
            self._open_on_gpu(ort, graph, [providers] if providers else cuda_attempts(device))

    def _open_on_gpu(
        self, ort: ModuleType, graph: bytes, attempts: Sequence[Sequence[Provider]]
    ) -> None:
        wanted = attempts[0][0][0]
        prepare_gpu(ort, self.device, wanted)
        with work_lock():
            session, providers, refusal = open_first(ort, graph, attempts, self._threads)
        got = session.get_providers()[0]
        if got != wanted:
            raise BackendUnavailable(
                f"device {self.device}: onnxruntime {ort.__version__} fell back to {got}, because"
                f" libraries of its {wanted} (CUDA, cuDNN, TensorRT) cannot be loaded; see"
                " its log, or use device='cpu'"
            )
        captures = "enable_cuda_graph" in providers[0][1]
        self._bound = BoundSession(
            ort, session, self.device, captures=captures, details=self.details
        )
        self.details["provider"] = got
        self.details["cuda_graphs"] = "none yet" if captures else f"none{refusal}"

    def run(self, inputs: Inputs, *, out: Images | None = None, alone: bool = True) -> Images:
        """Images uint8 (N, H, W, C) of N inputs; see `ganinfer.backends.Backend`."""
        try:
            if self._bound is not None:
                images = self._bound.run(inputs.feed())
            else:
                alone = alone or self.parallel_runs == 1
                session = self._session(self._threads if alone else 1)
                images = session.run(None, inputs.feed())[0]
        except Exception as error:
            raise self._explained(error) from error
        if out is None:
            return images
        np.copyto(out, images)  # binding `out` as the output costs more than the copy
        return out

    def run_on_device(self, inputs: Inputs) -> SupportsDLPack:
        """Images uint8 (N, H, W, C) of N inputs; see `ganinfer.backends.Backend`."""
        if self._bound is None:
            return self.run(inputs)
        try:
            images = self._bound.run_on_device(inputs.feed())
        except Exception as error:
            raise self._explained(error) from error
        if not hasattr(images, "__dlpack__"):
            raise BackendUnavailable(
                f"onnxruntime {self.details['onnxruntime']} hands out no memory of a GPU; run:"
                " pip install --upgrade onnxruntime-gpu; or use run"
            )
        return images

    def profile(self, inputs: Inputs, *, seconds: float) -> Profile:
        """Where the time of a batch goes; see `ganinfer.backends._profile.Profiled`."""
        if self._bound is not None:
            raise BackendUnavailable(
                f"onnxruntime's profiler sees no kernel of a GPU end; device {self.device} was"
                " asked for; use device='cpu', or backend='tensorrt'"
            )
        with tempfile.TemporaryDirectory(prefix="ganinfer-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            session = self._open(self._threads, profiled_in=folder)
            feed = inputs.feed()
            return _onnxruntime_profile.profile(
                session, lambda: session.run(None, feed), seconds, folder
            )

    def close(self) -> None:
        """Free the sessions."""
        if self._bound is not None:
            self._bound.close()
        with self._lock:
            self._closed = True
            self._sessions.clear()

    def _explained(self, error: Exception) -> GanError:
        if isinstance(error, GanError):
            return error
        return BackendUnavailable(f"onnxruntime failed on {self.device}: {error}")

    def _session(self, threads: int) -> Any:
        with self._lock:
            if self._closed:
                raise Closed("this backend is closed; open the bundle again")
            if threads not in self._sessions:
                self._sessions[threads] = self._open(threads)
            return self._sessions[threads]


class FeatureNetwork:
    """What sees images, a witness's extractor or a discriminator: ONNX, on the CPU."""

    def __init__(self, graph: bytes) -> None:
        """Load a graph.

        Raises:
            BackendUnavailable: onnxruntime is not installed, or refuses the graph.
        """
        self._session = _open_session(_import(), graph, [CPU], usable_cpus())

    def __call__(
        self, images: NDArray[np.uint8], y: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """uint8 (N, H, W, C), classes (N,) if it takes them -> features (N, F) or logits (N,)."""
        feed: dict[str, NDArray[Any]] = {"images": images}
        if y is not None:
            feed["y"] = y
        seen: NDArray[np.float32] = self._session.run(None, feed)[0]
        return seen


class ForeignNetwork:
    """A network of the user's own, that knows nothing of bundles: ONNX, on the CPU.

    Attributes:
        inputs: type and shape of each, such as ("tensor(float)", ["N", 1, 16, 16]).
    """

    def __init__(self, graph: bytes) -> None:
        """Load a graph.

        Raises:
            BackendUnavailable: onnxruntime is not installed, or refuses the graph.
        """
        self._session = _open_session(_import(), graph, [CPU], usable_cpus())
        found = self._session.get_inputs()
        self.inputs: list[tuple[str, list[int | str | None]]] = [(i.type, i.shape) for i in found]
        self._name = found[0].name

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """The first output, of the only input.

        Raises:
            BackendUnavailable: the graph fails.
        """
        try:
            output: NDArray[Any] = self._session.run(None, {self._name: array})[0]
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise BackendUnavailable(f"onnxruntime fails in the graph: {error}") from None
        return output


class MappingNetwork:
    """What makes styles of latents: ONNX, in float32, on the CPU."""

    def __init__(self, graph: bytes) -> None:
        """Load a graph.

        Raises:
            BackendUnavailable: onnxruntime is not installed, or refuses the graph.
        """
        self._session = _open_session(_import(), graph, [CPU], usable_cpus())
        self._names = {value.name for value in self._session.get_inputs()}

    def __call__(self, inputs: Inputs) -> NDArray[np.float32]:
        """Styles w float32 (N, L, D) of z, y and truncation."""
        feed = {name: array for name, array in inputs.feed().items() if name in self._names}
        w: NDArray[np.float32] = self._session.run(None, feed)[0]
        return w


def open_first(
    ort: ModuleType, graph: bytes, attempts: Sequence[Sequence[Provider]], threads: int
) -> tuple[Any, Sequence[Provider], str]:
    """A session with the first providers that take a graph.

    Returns:
        The session, its providers, and why they are not the ones before: "" or "; ...".

    Raises:
        BackendUnavailable: the last ones do not take it, either.
    """
    refusals = ""
    for providers in attempts[:-1]:
        try:
            return _open_session(ort, graph, providers, threads), providers, refusals
        except BackendUnavailable as refusal:
            log.warning("%s; asking for less", refusal)
            refusals += f"; {refusal}"
    return _open_session(ort, graph, attempts[-1], threads), attempts[-1], refusals


def _crashes(precision: str) -> tuple[str, ...]:
    return CRASH_IN_HALF if precision == "fp16" else ()


def _laid_out(graph: bytes, precision: str) -> Path | None:
    """A graph as onnxruntime optimizes it on this processor, beside its weights, packed and mapped.

    Of the same file a session is open sooner, and has little memory of its own.
    """
    ort = _import()
    if _numbers(ort.__version__) < _PACKS_INTO_FILES or isinstance(graph, LargeOnnx):
        return None
    without = _crashes(precision)

    def make(folder: Path) -> None:
        _open_session(ort, graph, [CPU], usable_cpus(), without=without, saved_in=folder)

    kept = mapped(graph, f"onnxruntime {ort.__version__} without {without}", make)
    return kept and kept / _LAID_OUT


def _save(options: Any, folder: Path) -> None:
    """Let a session write what it makes of a graph."""
    options.optimized_model_filepath = str(folder / _LAID_OUT)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_file_name", "weights"
    )
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", "1024"
    )
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")


def _open_session(
    ort: ModuleType,
    graph: bytes | Path,
    providers: Sequence[Provider],
    threads: int,
    *,
    fuse: bool = True,
    without: Sequence[str] = (),
    profiled_in: Path | None = None,
    saved_in: Path | None = None,
) -> Any:
    options = ort.SessionOptions()
    if isinstance(graph, Path):
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it was
    if saved_in is not None:
        _save(options, saved_in)
    if profiled_in is not None:
        _onnxruntime_profile.settings(options, profiled_in)
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that have nothing to do sleep soon: else they burn a core between two requests. Where
    # that can be said, only after a while: of callers who ask again at once each waits less.
    may_spin = _numbers(ort.__version__) >= _SPINS_FOR_A_WHILE
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(may_spin)))
    if may_spin:
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    # Never guess the file's type from its bytes.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if not fuse:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if CPU not in providers:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        with contextlib.ExitStack() as stack:
            file = graph
            if isinstance(graph, LargeOnnx):
                file = stack.enter_context(graph.on_disk())
            # Without the fallback, with which it goes on on the CPU after a failure on the GPU.
            return ort.InferenceSession(
                file,
                options,
                providers=list(providers),
                enable_fallback=0,
                disabled_optimizers=list(without),
            )
    except BackendUnavailable:
        raise
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        if "float8" in str(error) and fuse:
            # It fuses float8 into operators that it has for int8 alone.
            again = functools.partial(_open_session, ort, graph, providers, threads, fuse=False)
            return again(without=without, profiled_in=profiled_in, saved_in=saved_in)
        raise BackendUnavailable(
            f"onnxruntime {ort.__version__} refuses the graph: {error}"
        ) from None


def _numbers(version: str) -> tuple[int, ...]:
    """Of a version such as 1.31.1."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def installed() -> tuple[str, list[str]]:
    """This onnxruntime's version, and the execution providers that it was built with.

    Raises:
        BackendUnavailable: there is none.
    """
    ort = _import()
    return ort.__version__, ort.get_available_providers()


# y = x + x of one float32, as an ONNX file.
_ADDITION = (
    b'\x08\x08:5\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01'
    b"\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


def providers_here() -> dict[str, str]:
    """Execution providers of this onnxruntime, and in words whether each takes a graph here.

    Raises:
        BackendUnavailable: there is no onnxruntime.
    """
    ort = _import()
    if gpu_present() and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what it would log is what is told
    found = {}
    for name in ort.get_available_providers():
        try:
            session = ort.InferenceSession(_ADDITION, options, providers=[name], enable_fallback=0)
            opened = session.get_providers()[0]
            found[name] = "opens" if opened == name else f"falls back to {opened}"
        except Exception as error:  # it raises a dozen unrelated classes
            found[name] = f"does not open: {' '.join(str(error).split())[:200]}"
    return found


def _import() -> ModuleType:
    quiet_onnxruntime()
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise BackendUnavailable(str(missing_extra("onnxruntime", error))) from None
    except Exception as error:  # whatever it raises on a host that it does not like
        raise BackendUnavailable(
            f"onnxruntime is installed and cannot be loaded: {error}"
        ) from None
    module: ModuleType = onnxruntime
    return module
