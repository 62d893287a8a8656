"""What onnxruntime is told of CUDA, and what CUDA needs of this host."""

from types import ModuleType

from ganinfer.backends._base import device_index
from ganinfer.errors import BackendUnavailable
from ganinfer.host.machine import gpu_present

Provider = tuple[str, dict[str, str]]  # an execution provider's name and options

CUDA = "CUDAExecutionProvider"
CPU: Provider = ("CPUExecutionProvider", {})


def cuda(device: str) -> Provider:
    """CUDA on a device "cuda:<n>", with float32 as float32.

    Since 1.20 EXHAUSTIVE measures no longer, but asks a slower heuristic of cuDNN's, and asks again
    whenever a batch has another size than the one before. The workspace has no limit by default;
    NHWC is left alone: what it gains depends on the transposes that it costs.
    """
    options = {"device_id": str(device_index(device)), "use_tf32": "0"}
    options["cudnn_conv_algo_search"] = "HEURISTIC"
    return CUDA, options


def cuda_attempts(device: str) -> list[list[Provider]]:
    """CUDA with CUDA graphs, which a session refuses whose nodes are not all on it; without."""
    name, options = cuda(device)
    return [[(name, options | {"enable_cuda_graph": "1"}), CPU], [(name, options), CPU]]


def prepare_gpu(ort: ModuleType, device: str, provider: str) -> None:
    """Load the CUDA libraries, or say why they cannot serve."""
    if provider not in ort.get_available_providers():
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
