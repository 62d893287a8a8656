"""onnxruntime on the CPU or on CUDA."""

import math
import os
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ganinfer.backends import Backend, pick_precision
from ganinfer.bundle import Bundle
from ganinfer.errors import BackendUnavailable, missing_extra


def open(bundle: Bundle, device: str, precision: str) -> Backend:
    """Open a bundle's ONNX file; see `ganinfer.backends`."""
    available = [graph.precision for graph in bundle.manifest.graphs]
    provider = _pick_provider(device)
    on_gpu = provider == "CUDAExecutionProvider"
    preferred = ["fp16", "fp32"] if on_gpu else ["fp32", "fp16"]
    chosen = pick_precision(bundle, available, precision, preferred)
    place = (f"cuda:{_index(device)}") if on_gpu else "cpu"
    return OnnxRuntimeBackend(bundle.read_graph(chosen), place, chosen)


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
        self.device = device
        self.precision = precision
        self.fixed_batches = device != "cpu"
        threads = usable_cpus()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers: list[object] = ["CPUExecutionProvider"]
        if device != "cpu":
            cuda = {"device_id": device.partition(":")[2], "use_tf32": "0"}
            cuda["cudnn_conv_algo_search"] = "HEURISTIC"
            providers.insert(0, ("CUDAExecutionProvider", cuda))
        try:
            self._session = ort.InferenceSession(graph, options, providers=providers)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            raise BackendUnavailable(
                f"onnxruntime {ort.__version__} refuses the graph: {error}"
            ) from None
        got = self._session.get_providers()[0]
        if device != "cpu" and got != "CUDAExecutionProvider":
            raise BackendUnavailable(
                f"device {device}: onnxruntime {ort.__version__} fell back to {got}, because"
                " its CUDA or cuDNN libraries cannot be loaded; see its log, or use device='cpu'"
            )
        self._conditional = len(self._session.get_inputs()) > 1
        self.details = {"onnxruntime": ort.__version__, "provider": got, "threads": str(threads)}

    def run(self, z: NDArray[np.float32], y: NDArray[np.int64] | None) -> NDArray[np.uint8]:
        """Z (N, Z), y (N,) or None -> images uint8 (N, H, W, C)."""
        feed = {"z": z, "y": y} if self._conditional else {"z": z}
        images: NDArray[np.uint8] = self._session.run(None, feed)[0]
        return images

    def close(self) -> None:
        """Free the session."""
        del self._session


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
    module: ModuleType = onnxruntime
    return module


def _pick_provider(device: str) -> str:
    if device == "cpu":
        return "CPUExecutionProvider"
    ort = _import()
    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if has_cuda and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # the pip packages' CUDA libraries are found without importing torch
    if device == "auto":
        return "CUDAExecutionProvider" if has_cuda and _gpu_present() else "CPUExecutionProvider"
    if not has_cuda:
        raise BackendUnavailable(
            f"device {device!r}: this onnxruntime {ort.__version__} is built without CUDA; run:"
            " pip uninstall onnxruntime; pip install 'ganpipe[gpu]'; or use device='cpu'"
        )
    if not _gpu_present():
        raise BackendUnavailable(
            f"device {device!r}: no NVIDIA driver on this host; use device='cpu'"
        )
    return "CUDAExecutionProvider"


def _gpu_present() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists() or os.name == "nt"


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)
