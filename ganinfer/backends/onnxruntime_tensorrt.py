"""TensorRT through onnxruntime: this host builds the engine of an ONNX file and keeps it.

For hosts whose GPU the bundle's own engines do not fit. What TensorRT does not take runs on CUDA;
nothing runs on the CPU.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ganinfer.backends._base import Backend, SupportsDLPack, device_index, pick_precision
from ganinfer.backends._onnxruntime_cuda import CUDA, Provider, cuda
from ganinfer.backends.onnxruntime import (
    GPU_BATCH_SIZES,
    OnnxRuntimeBackend,
    installed,
    precisions,
)
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.large_onnx import LargeOnnx
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.model import Model
from ganinfer.errors import BackendUnavailable, RequestError

Batches = tuple[int, int, int]  # smallest, likeliest and largest

TENSORRT = "TensorrtExecutionProvider"
TENSORRT_RTX = "NvTensorRTRTXExecutionProvider"
_DEFAULT_BATCHES: Batches = (1, 64, 256)


def open(bundle: Bundle, device: str, precision: str) -> Backend:
    """Open a bundle's ONNX file with TensorRT; see `ganinfer.backends`."""
    from platformdirs import user_cache_path

    if device == "cpu":
        raise BackendUnavailable("TensorRT runs on NVIDIA GPUs; device 'cpu' was asked for")
    graphs: dict[str, str] = {graph.precision: graph.path for graph in bundle.manifest.graphs}
    chosen = pick_precision(bundle, precisions(bundle), precision, ["fp16", "fp32"])
    version, available = installed()
    name = next((name for name in (TENSORRT, TENSORRT_RTX) if name in available), None)
    if name is None:
        raise BackendUnavailable(
            f"this onnxruntime {version} has no TensorRT, only {', '.join(available)}; run:"
            " pip uninstall onnxruntime; pip install 'ganpipe[gpu]'; or use backend='onnxruntime'"
        )
    graph = bundle.read_graph(chosen)
    if isinstance(graph, LargeOnnx):
        raise BackendUnavailable(
            f"{bundle.path}: the weights of {chosen} lie beside its graph, which onnxruntime does"
            " not pass on to TensorRT; use backend='onnxruntime', or an engine: gan export --trt"
        )
    # onnxruntime knows a kept engine by its graph's names, not by its weights: a folder for each.
    folder = user_cache_path("ganpipe") / "onnxruntime_tensorrt" / version
    cache = folder / bundle.manifest.files[graphs[chosen]].sha256
    cache.mkdir(parents=True, exist_ok=True)
    place, batches = f"cuda:{device_index(device)}", _batches(bundle, chosen)
    options = provider_options(
        name, device=place, model=bundle.manifest.model, batches=batches, cache=cache
    )
    providers = [(name, options)] + ([cuda(place)] if CUDA in available else [])
    return TensorRTSession(graph, place, chosen, providers=providers, largest=batches[2])


def provider_options(
    name: str, *, device: str, model: Model, batches: Batches, cache: Path
) -> dict[str, str]:
    """What an execution provider is told: shapes of its one profile, and where to keep things.

    Nothing is said of precisions: then it takes them as they stand in the file. Nor of CUDA graphs:
    TensorRT would keep one for all batch sizes, and for TensorRT-RTX no rule of ids is documented.

    Args:
        name: TENSORRT or TENSORRT_RTX.
        device: "cuda:<n>".
        model: names and sizes the inputs.
        batches: smallest, likeliest and largest.
        cache: folder for this ONNX file; what serves all files is kept beside it.
    """
    shapes = profile_shapes("trt" if name == TENSORRT else "nv", model, batches)
    options = {"device_id": str(device_index(device)), **shapes}
    if name == TENSORRT_RTX:
        return options | {"nv_runtime_cache_path": str(cache)}
    return options | {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(cache),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(cache.parent),
    }


def profile_shapes(prefix: str, model: Model, batches: Batches) -> dict[str, str]:
    """The options that give the shapes of an engine's one profile.

    Args:
        prefix: of their names: "trt" of TensorRT, "nv" of TensorRT-RTX.
        model: names and sizes the inputs.
        batches: smallest, likeliest and largest.
    """
    options = {}
    for bound, batch in zip(("min", "opt", "max"), batches, strict=True):
        shapes = f"z:{batch}x{model.z_dim}"
        if model.classes:
            weights = f"x{len(model.classes)}" if model.class_input == "weights" else ""
            shapes += f",y:{batch}{weights}"
        if model.truncation_input is not None:
            shapes += f",truncation:{batch}"
        if (styles := model.style_input) is not None:
            shapes += f",w:{batch}x{styles.num_styles}x{styles.w_dim},takes_w:{batch}"
        options[f"{prefix}_profile_{bound}_shapes"] = shapes
    return options


class TensorRTSession(OnnxRuntimeBackend):
    """A session whose batches have a largest size; see `ganinfer.backends.Backend`."""

    name = "onnxruntime_tensorrt"

    def __init__(
        self,
        graph: bytes,
        device: str,
        precision: str,
        *,
        providers: Sequence[Provider],
        largest: int,
    ) -> None:
        """Build the engine, or find it; see `OnnxRuntimeBackend`. largest: batch of its profile."""
        super().__init__(graph, device, precision, providers=providers)
        self._largest = largest
        self.batch_sizes = (*(size for size in GPU_BATCH_SIZES if size < largest), largest)

    def run(self, inputs: Inputs, *, out: Images | None = None, alone: bool = True) -> Images:
        """Images uint8 (N, H, W, C) of N inputs; N beyond the profile is split."""
        step, run = self._largest, super().run
        if len(inputs) <= step:
            return run(inputs, out=out, alone=alone)
        parts = [run(inputs.rows(i, i + step), alone=alone) for i in range(0, len(inputs), step)]
        return np.concatenate(parts, out=out)

    def run_on_device(self, inputs: Inputs) -> SupportsDLPack:
        """Images uint8 (N, H, W, C) where the GPU has them; N beyond the profile is refused."""
        if len(inputs) > self._largest:
            raise RequestError(
                f"{len(inputs)} images: the engine makes at most {self._largest} at once"
            )
        return super().run_on_device(inputs)


def _batches(bundle: Bundle, precision: str) -> Batches:
    """One profile that covers those of the bundle's engines of that precision."""
    profiles = [p for e in bundle.manifest.engines if e.precision == precision for p in e.profiles]
    if not profiles:
        return _DEFAULT_BATCHES
    _, likeliest, largest = max(profiles, key=lambda profile: profile[2])
    return 1, likeliest, largest
