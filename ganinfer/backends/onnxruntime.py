"""onnxruntime on the CPU or on CUDA."""

import functools
import logging
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends import Backend, device_index, gpu_present, pick_precision, usable_cpus
from ganinfer.bundle import Bundle
from ganinfer.errors import BackendUnavailable, RequestError, missing_extra
from ganinfer.images import Images
from ganinfer.inputs import Inputs

log = logging.getLogger(__name__)

Provider = tuple[str, dict[str, str]]  # an execution provider's name and options
CUDA = "CUDAExecutionProvider"
_CPU: Provider = ("CPUExecutionProvider", {})
# cuDNN tunes itself for every new size.
GPU_BATCH_SIZES = tuple(1 << n for n in range(13))


def precisions(bundle: Bundle) -> list[str]:
    """Those of its ONNX files."""
    return [graph.precision for graph in bundle.manifest.graphs]


def open(bundle: Bundle, device: str, precision: str) -> Backend:
    """Open a bundle's ONNX file; see `ganinfer.backends`."""
    available = precisions(bundle)
    places = [device if device == "cpu" else f"cuda:{device_index(device)}"]
    if device == "auto":
        places = ["cuda:0", "cpu"] if _has_cuda() and gpu_present() else ["cpu"]
    for place in places:
        preferred = ["fp32", "fp16"] if place == "cpu" else ["fp16", "fp32"]
        chosen = pick_precision(bundle, available, precision, preferred)
        try:
            return OnnxRuntimeBackend(bundle.read_graph(chosen), place, chosen)
        except BackendUnavailable as refusal:
            if place == places[-1]:
                raise
            log.warning("%s: %s; using the CPU", bundle.path, refusal)
    raise AssertionError("there is always a last place")


class OnnxRuntimeBackend:
    """Sessions over one ONNX file; see `ganinfer.backends.Backend`.

    On a CPU there are two: many runs at once are soonest done with a thread each, one run with all.
    """

    name = "onnxruntime"

    def __init__(
        self,
        graph: bytes,
        device: str,
        precision: str,
        *,
        providers: Sequence[Provider] | None = None,
    ) -> None:
        """Load a graph.

        Args:
            graph: an ONNX file.
            device: "cpu" or "cuda:<n>", present.
            precision: of the graph, for the record.
            providers: best first; by default the CPU, or CUDA and the CPU.
        """
        ort = _import()
        if providers is None:
            providers = [_CPU] if device == "cpu" else [cuda(device), _CPU]
        if device != "cpu":
            _prepare_gpu(ort, device, providers[0][0])
        self.device = device
        self.precision = precision
        on_cpu = device == "cpu"
        self._threads = usable_cpus()
        self.parallel_runs = self._threads if on_cpu else 1
        self.batch_sizes = () if on_cpu else GPU_BATCH_SIZES
        self.pads = not on_cpu
        self._open = functools.partial(_open_session, ort, graph, providers)
        self._lock = threading.Lock()
        self._sessions: dict[int, Any] = {}  # by number of threads
        self._closed = False
        got = self._session(self._threads).get_providers()[0]
        if got != providers[0][0]:
            raise BackendUnavailable(
                f"device {device}: onnxruntime {ort.__version__} fell back to {got}, because"
                f" libraries of its {providers[0][0]} (CUDA, cuDNN, TensorRT) cannot be loaded; see"
                " its log, or use device='cpu'"
            )
        self.details = {
            "onnxruntime": ort.__version__,
            "provider": got,
            "threads": str(self._threads),
        }

    def run(self, inputs: Inputs, *, out: Images | None = None, alone: bool = True) -> Images:
        """Images uint8 (N, H, W, C) of N inputs; see `ganinfer.backends.Backend`."""
        session = self._session(1 if self.device == "cpu" and not alone else self._threads)
        try:
            images: Images = session.run(None, inputs.feed())[0]
        except Exception as error:
            raise BackendUnavailable(f"onnxruntime failed on {self.device}: {error}") from error
        if out is None:
            return images
        np.copyto(out, images)  # binding `out` as the output costs more than the copy
        return out

    def close(self) -> None:
        """Free the sessions."""
        with self._lock:
            self._closed = True
            self._sessions.clear()

    def _session(self, threads: int) -> Any:
        with self._lock:
            if self._closed:
                raise RequestError("this backend is closed; open the bundle again")
            if threads not in self._sessions:
                session = self._open(threads)
                session.disable_fallback()  # it would go on on the CPU after a failure on the GPU
                self._sessions[threads] = session
            return self._sessions[threads]


class FeatureNetwork:
    """What sees images, a witness's extractor or a discriminator: ONNX, on the CPU."""

    def __init__(self, graph: bytes) -> None:
        """Load a graph.

        Raises:
            BackendUnavailable: onnxruntime is not installed, or refuses the graph.
        """
        self._session = _open_session(_import(), graph, [_CPU], usable_cpus())

    def __call__(
        self, images: NDArray[np.uint8], y: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """uint8 (N, H, W, C), classes (N,) if it takes them -> features (N, F) or logits (N,)."""
        feed: dict[str, NDArray[Any]] = {"images": images}
        if y is not None:
            feed["y"] = y
        seen: NDArray[np.float32] = self._session.run(None, feed)[0]
        return seen


def _open_session(
    ort: ModuleType, graph: bytes, providers: Sequence[Provider], threads: int
) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Never guess the file's type from its bytes.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    if _CPU not in providers:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        return ort.InferenceSession(graph, options, providers=list(providers))
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise BackendUnavailable(
            f"onnxruntime {ort.__version__} refuses the graph: {error}"
        ) from None


def cuda(device: str) -> Provider:
    """CUDA on a device "cuda:<n>", with float32 as float32."""
    options = {"device_id": str(device_index(device)), "use_tf32": "0"}
    options["cudnn_conv_algo_search"] = "HEURISTIC"
    return CUDA, options


def installed() -> tuple[str, list[str]]:
    """This onnxruntime's version, and the execution providers that it was built with.

    Raises:
        BackendUnavailable: there is none.
    """
    ort = _import()
    return ort.__version__, ort.get_available_providers()


def _import() -> ModuleType:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise BackendUnavailable(str(missing_extra("onnxruntime"))) from None
    except (ImportError, OSError) as error:
        raise BackendUnavailable(
            f"onnxruntime is installed and cannot be loaded: {error}"
        ) from None
    module: ModuleType = onnxruntime
    return module


def _has_cuda() -> bool:
    return CUDA in installed()[1]


def _prepare_gpu(ort: ModuleType, device: str, provider: str) -> None:
    """Load the CUDA libraries, or say why they cannot serve."""
    if provider not in installed()[1]:
        raise BackendUnavailable(
            f"device {device!r}: this onnxruntime {ort.__version__} is built without {provider};"
            " run: pip uninstall onnxruntime; pip install 'ganpipe[gpu]'; or use device='cpu'"
        )
    if not gpu_present():
        raise BackendUnavailable(
            f"device {device!r}: this host shows no NVIDIA GPU; use device='cpu'"
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # the pip packages' CUDA libraries are found without importing torch
