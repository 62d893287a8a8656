"""OpenVINO on the CPU: float32, bfloat16 where the CPU computes in it, int8."""

import contextlib
import ctypes
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ganinfer.backends import _openvino_profile
from ganinfer.backends._base import Backend, SupportsDLPack, pick_precision
from ganinfer.backends._profile import Profile
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.large_onnx import LargeOnnx
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs
from ganinfer.errors import BackendUnavailable, Closed, missing_extra
from ganinfer.host.limits import usable_cpus
from ganinfer.host.mapped import mapped
from ganinfer.host.telemetry import quiet_openvino

log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "bf16", "int8")
# A new size is compiled once, in some 50 ms: so they are few.
BATCH_SIZES: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_LAID_OUT = "graph.xml"

_first_use = threading.Lock()


def precisions(bundle: Bundle) -> list[str]:
    """Those of its ONNX files that it computes in."""
    return [graph.precision for graph in bundle.manifest.graphs if graph.precision in PRECISIONS]


def open(bundle: Bundle, device: str, precision: str) -> Backend:
    """Open a bundle's ONNX file; see `ganinfer.backends`."""
    if device not in ("auto", "cpu"):
        raise BackendUnavailable(f"openvino runs on the CPU; device {device!r} was asked for")
    core = new_core()
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    available = [p for p in precisions(bundle) if p != "bf16" or has_bfloat16]
    chosen = pick_precision(bundle, available, precision, ["bf16", "fp32"])
    graph = bundle.read_graph(chosen)
    if laid_out := _laid_out(graph, core):
        try:
            return OpenVINOBackend(laid_out, chosen, core)
        except BackendUnavailable as refusal:  # as where somebody empties the cache just now
            log.warning("%s; weights are not shared with other processes", refusal)
    return OpenVINOBackend(graph, chosen, core)


def _laid_out(graph: bytes, core: Any) -> Path | None:
    """A graph in OpenVINO's own form, whose weights it maps; it packs them anew, in memory."""
    ov = _import()
    if isinstance(graph, LargeOnnx):
        return None

    def make(folder: Path) -> None:
        try:
            model = core.read_model(graph, b"")
            ov.save_model(model, folder / _LAID_OUT, compress_to_fp16=False)
        except RuntimeError as error:
            raise _refused(error) from None

    kept = mapped(graph, f"openvino {ov.__version__}", make)
    return kept and kept / _LAID_OUT


class OpenVINOBackend:
    """A model compiled twice: a thread for each of many runs, or all threads for one.

    A `LargeOnnx` is compiled once, for each model holds the weights.
    """

    name = "openvino"
    device = "cpu"
    batch_sizes = BATCH_SIZES
    pads = False

    def __init__(self, graph: bytes | Path, precision: str, core: Any) -> None:
        """Compile a graph.

        Args:
            graph: an ONNX file, or where `_laid_out` has put it.
            precision: what it is computed in: "fp32", "bf16" or "int8".
            core: OpenVINO's, for this backend alone.
        """
        ov = _import()
        self.precision = precision
        self._threads = usable_cpus()
        self.parallel_runs = 1 if isinstance(graph, LargeOnnx) else self._threads
        self._core = core
        self._files = contextlib.ExitStack()  # weights beside a graph are read when it is compiled
        try:
            if isinstance(graph, LargeOnnx):
                self._model: Any = core.read_model(self._files.enter_context(graph.on_disk()))
            elif isinstance(graph, Path):
                self._model = core.read_model(graph)
            else:
                self._model = core.read_model(graph, b"")
        except RuntimeError as error:
            raise _refused(error) from None
        self._lock = threading.Lock()
        # By how many runs at once: the model, and its requests that nobody uses.
        self._compiled: dict[int, tuple[Any, list[Any]]] = {}
        self.details = {
            "openvino": ov.__version__.partition("-")[0],
            "threads": str(self._threads),
        }
        if isinstance(graph, Path):
            self.details["weights"] = "mapped"
        self._compile(self.parallel_runs)

    def run(self, inputs: Inputs, *, out: Images | None = None, alone: bool = True) -> Images:
        """Images uint8 (N, H, W, C) of N inputs; see `ganinfer.backends.Backend`."""
        compiled, free = self._compile(1 if alone else self.parallel_runs)
        try:
            request = free.pop()
        except IndexError:
            request = compiled.create_infer_request()
        try:
            found = request.infer(inputs.feed(), share_inputs=True, share_outputs=True)[0]
            if out is None:
                return np.array(found)  # the request keeps its own
            np.copyto(out, found)
        except RuntimeError as error:
            raise BackendUnavailable(f"openvino failed on cpu: {error}") from error
        finally:
            free.append(request)
        return out

    def run_on_device(self, inputs: Inputs) -> SupportsDLPack:
        """Images uint8 (N, H, W, C) of N inputs; see `ganinfer.backends.Backend`."""
        return self.run(inputs)

    def profile(self, inputs: Inputs, *, seconds: float) -> Profile:
        """Where the time of a batch goes; see `ganinfer.backends._profile.Profiled`."""
        feed = inputs.feed()
        return _openvino_profile.profile(
            lambda: self._compiled_for(1, PERF_COUNT="YES"),
            lambda request: request.infer(feed, share_inputs=True, share_outputs=True),
            seconds,
        )

    def close(self) -> None:
        """Free the models."""
        with self._lock:
            self._model = self._core = None
            self._compiled.clear()
            self._files.close()

    def _compile(self, num_streams: int) -> tuple[Any, list[Any]]:
        with self._lock:
            if self._model is None:
                raise Closed("this backend is closed; open the bundle again")
            if num_streams not in self._compiled:
                self._compiled[num_streams] = self._compiled_for(num_streams), []
            return self._compiled[num_streams]

    def _compiled_for(self, num_streams: int, **settings: str) -> Any:
        """The model, for so many runs at once."""
        settings |= {
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "NUM_STREAMS": str(num_streams),
            "INFERENCE_NUM_THREADS": str(self._threads),
        }
        return self._core.compile_model(self._model, "CPU", settings)


def _refused(error: RuntimeError) -> BackendUnavailable:
    return BackendUnavailable(f"openvino {_import().__version__} refuses the graph: {error}")


def capabilities_here() -> list[str]:
    """What its CPU plugin computes in here, as it names it: FP32, BF16, INT8, ...

    Raises:
        BackendUnavailable: there is no OpenVINO, or it does not start.
    """
    return list(new_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def new_core() -> Any:
    """A core with its CPU plugin, and the stack for signal handlers as it was."""
    with _signal_stack_kept():
        ov = _import()
        try:
            core = ov.Core()
            core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
        except RuntimeError as error:
            raise BackendUnavailable(f"openvino does not start: {error}") from None
    return core


class _SignalStack(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Put the thread's stack for signal handlers back.

    A plugin sets one of its own and, when freed, puts back what it found. Of two plugins that end
    in the order of their making the second puts back that of the first, which is freed, and the
    next signal that Python handles is fatal.
    """
    try:
        libc, found = ctypes.CDLL(None), _SignalStack()
        libc.sigaltstack(None, ctypes.byref(found))
    except (OSError, AttributeError, TypeError):  # not a Unix
        yield
        return
    yield
    libc.sigaltstack(ctypes.byref(found), None)


def _import() -> ModuleType:
    try:
        with quiet_openvino():
            import openvino
    except ModuleNotFoundError as error:
        raise BackendUnavailable(str(missing_extra("openvino", error))) from None
    except Exception as error:  # as where a user has no home
        raise BackendUnavailable(f"openvino is installed and cannot be loaded: {error}") from None
    with _first_use:
        # Its bindings look NumPy up at their first use. Two threads that do so at once, one holding
        # the interpreter's lock and one theirs, wait for each other for ever.
        openvino.Tensor(np.zeros(1, np.float32)).element_type.to_dtype()
    module: ModuleType = openvino
    return module
