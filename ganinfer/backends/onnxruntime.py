"""onnxruntime on the CPU or on CUDA."""

import logging
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends import Backend, device_index, gpu_present, pick_precision
from ganinfer.bundle import Bundle
from ganinfer.errors import BackendUnavailable, RequestError, missing_extra
from ganinfer.inputs import Inputs

log = logging.getLogger(__name__)


def open(bundle: Bundle, device: str, precision: str) -> Backend:
    """Open a bundle's ONNX file; see `ganinfer.backends`."""
    available = [graph.precision for graph in bundle.manifest.graphs]
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
    """A session over one ONNX file; see `ganinfer.backends.Backend`."""

    name = "onnxruntime"

    def __init__(self, graph: bytes, device: str, precision: str) -> None:
        """Load a graph.

        Args:
            graph: an ONNX file.
            device: "cpu" or "cuda:<n>", present.
            precision: of the graph, for the record.
        """
        ort = _import()
        if device != "cpu":
            _prepare_cuda(ort, device)
        self.device = device
        self.precision = precision
        self.fixed_batches = device != "cpu"
        threads = usable_cpus()
        self._session: Any = _open_session(ort, graph, device, threads)
        self._session.disable_fallback()  # it would go on on the CPU after a failure on the GPU
        got = self._session.get_providers()[0]
        if device != "cpu" and got != "CUDAExecutionProvider":
            raise BackendUnavailable(
                f"device {device}: onnxruntime {ort.__version__} fell back to {got}, because"
                " its CUDA or cuDNN libraries cannot be loaded; see its log, or use device='cpu'"
            )
        self.details = {"onnxruntime": ort.__version__, "provider": got, "threads": str(threads)}

    def run(self, inputs: Inputs) -> NDArray[np.uint8]:
        """Images uint8 (N, H, W, C) of N inputs."""
        session = self._session
        if session is None:
            raise RequestError("this backend is closed; open the bundle again")
        try:
            images: NDArray[np.uint8] = session.run(None, inputs.feed())[0]
        except Exception as error:
            raise BackendUnavailable(f"onnxruntime failed on {self.device}: {error}") from error
        return images

    def close(self) -> None:
        """Free the session."""
        self._session = None


class FeatureNetwork:
    """What sees images, a witness's extractor or a discriminator: ONNX, on the CPU."""

    def __init__(self, graph: bytes) -> None:
        """Load a graph.

        Raises:
            BackendUnavailable: onnxruntime is not installed, or refuses the graph.
        """
        self._session = _open_session(_import(), graph, "cpu", usable_cpus())

    def __call__(
        self, images: NDArray[np.uint8], y: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """uint8 (N, H, W, C), classes (N,) if it takes them -> features (N, F) or logits (N,)."""
        feed: dict[str, NDArray[Any]] = {"images": images}
        if y is not None:
            feed["y"] = y
        seen: NDArray[np.float32] = self._session.run(None, feed)[0]
        return seen


def _open_session(ort: ModuleType, graph: bytes, device: str, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Never guess the file's type from its bytes.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    providers: list[object] = ["CPUExecutionProvider"]
    if device != "cpu":
        cuda = {"device_id": device.partition(":")[2], "use_tf32": "0"}
        cuda["cudnn_conv_algo_search"] = "HEURISTIC"
        providers.insert(0, ("CUDAExecutionProvider", cuda))
    try:
        return ort.InferenceSession(graph, options, providers=providers)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise BackendUnavailable(
            f"onnxruntime {ort.__version__} refuses the graph: {error}"
        ) from None


def usable_cpus() -> int:
    """CPUs that this process may use: its affinity, cut down by a container's quota."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, math.ceil(int(quota) / int(period))))


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
    return "CUDAExecutionProvider" in _import().get_available_providers()


def _prepare_cuda(ort: ModuleType, device: str) -> None:
    """Load the CUDA libraries, or say why they cannot serve."""
    if not _has_cuda():
        raise BackendUnavailable(
            f"device {device!r}: this onnxruntime {ort.__version__} is built without CUDA; run:"
            " pip uninstall onnxruntime; pip install 'ganpipe[gpu]'; or use device='cpu'"
        )
    if not gpu_present():
        raise BackendUnavailable(
            f"device {device!r}: this host shows no NVIDIA GPU; use device='cpu'"
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # the pip packages' CUDA libraries are found without importing torch
