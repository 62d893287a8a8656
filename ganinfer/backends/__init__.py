"""Backends: one module each, with open(bundle, device, precision) -> Backend.

`precisions(bundle)` names those of a bundle's variants that the backend takes.
`open` raises BackendUnavailable, with the reason and the remedy, when this host, this device or
this bundle cannot do it. It never settles for another device than the one asked for.
"""

import logging
import math
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ganinfer.bundle import Bundle
from ganinfer.errors import BackendUnavailable, GanError, ParityError
from ganinfer.images import Images
from ganinfer.inputs import Inputs
from ganinfer.lookup import find_module

log = logging.getLogger(__name__)


class SupportsDLPack(Protocol):
    """What torch.from_dlpack, cupy.from_dlpack and numpy.from_dlpack take without a copy."""

    def __dlpack__(self, *, stream: Any = None) -> Any:
        """A capsule that keeps the memory alive."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device."""


class Backend(Protocol):
    """A loaded generator. Calls from several threads are safe.

    Attributes:
        name: of the backend's module. device: "cpu" or "cuda:<n>". precision: "fp32", "fp16", ...
        parallel_runs: how many runs at once the device has threads for.
        batch_sizes: those that it should be given, since a new one costs time; rising. Empty: any.
        pads: whether a batch in between is padded to the next size; else it is cut into several.
        details: what `Sampler.info` adds: versions, threads, engine.
    """

    name: str
    device: str
    precision: str
    parallel_runs: int
    batch_sizes: tuple[int, ...]
    pads: bool
    details: dict[str, str]

    def run(self, inputs: Inputs, *, out: Images | None = None, alone: bool = True) -> Images:
        """Images uint8 (N, H, W, C) of N inputs.

        Args:
            inputs: a batch.
            out: contiguous uint8 (N, H, W, C) to write them into.
            alone: nothing else is to do: all threads may work on it.
        """

    def run_on_device(self, inputs: Inputs) -> SupportsDLPack:
        """Images uint8 (N, H, W, C) of N inputs, in memory of the device; on a CPU as of `run`.

        Raises:
            BackendUnavailable: this one hands out no memory of a GPU.
        """

    def close(self) -> None:
        """Free what the backend holds."""


def open_backend(
    bundle: Bundle, name: str, device: str, precision: str, *, prove: Callable[[Backend], None]
) -> tuple[Backend, str]:
    """Open a backend by name, or the best one that this host and bundle allow.

    Args:
        bundle: an opened bundle.
        name: module in this package, or "auto": what `gan bench --tune` found fastest here, if
            device and precision are "auto" as well; else the first that opens and gives the right
            images, of TensorRT, if the bundle has engines, onnxruntime on a GPU, OpenVINO, if it
            is installed, and onnxruntime on the CPU.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        precision: "auto", or one that the bundle holds.
        prove: raises ParityError of a backend that gives other images than it should; of "auto"
            the next one is then tried.

    Returns:
        The backend, and in words why it was chosen.

    Raises:
        ConfigError: there is no backend of that name.
        BackendUnavailable: none can be opened; every reason is named.
        ParityError: those that open give other images.
    """
    if name != "auto":
        return _proven(bundle, name, device, precision, prove), "asked for"
    from ganinfer.tuned import recall

    refusals: list[str] = []
    if device == precision == "auto" and (choice := recall(bundle.sha256)):
        try:
            tuned = _proven(bundle, choice.backend, choice.device, choice.precision, prove)
        except GanError as refusal:
            log.warning("%s: what was tuned for this host is no more: %s", bundle.path, refusal)
            refusals.append(f"tuned {choice.backend} {choice.precision}: {refusal}")
        else:
            return tuned, f"tuned on this host: {choice}"
    wrong: ParityError | None = None
    for candidate, place in _candidates(bundle, device):
        try:
            backend = _proven(bundle, candidate, place, precision, prove)
        except BackendUnavailable as refusal:
            refusals.append(f"{candidate}: {refusal}")
        except ParityError as refusal:
            log.warning("%s; trying what else there is", refusal)
            refusals.append(f"{candidate}: {refusal}")
            wrong = wrong or refusal
        else:
            return backend, "; ".join(["first that opens", *refusals])
    raise wrong or BackendUnavailable(
        f"{bundle.path}: no backend can be opened. {' | '.join(refusals)}"
    )


def _candidates(bundle: Bundle, device: str) -> list[tuple[str, str]]:
    """Backends and devices, best first."""
    on_cpu = [("openvino", "cpu")] if find_spec("openvino") else []
    on_cpu.append(("onnxruntime", "cpu"))
    if device == "cpu":
        return on_cpu
    on_gpu = [("tensorrt", device)] if bundle.manifest.engines else []
    if device != "auto":
        return [*on_gpu, ("onnxruntime", device)]
    return [*on_gpu, *([("onnxruntime", "cuda")] if gpu_present() else []), *on_cpu]


def _proven(
    bundle: Bundle, name: str, device: str, precision: str, prove: Callable[[Backend], None]
) -> Backend:
    """A backend that gives the right images."""
    module = find_module("ganinfer.backends", name, where="backend")
    backend: Backend = module.open(bundle, device, precision)
    try:
        prove(backend)
    except BaseException:
        backend.close()
        raise
    return backend


def precisions_of(bundle: Bundle, name: str) -> list[str]:
    """A bundle's precisions that a backend takes, on hosts where it opens."""
    module = find_module("ganinfer.backends", name, where="backend")
    held: list[str] = module.precisions(bundle)
    return held


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


def gpu_present() -> bool:
    """Does this host show an NVIDIA GPU to this process? (A look at /dev; nothing is loaded.)"""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists() or os.name == "nt"


def device_index(device: str) -> int:
    """The number in "cuda:<n>"; 0 where none is named."""
    return int(device.partition(":")[2] or 0)


def pick_precision(
    bundle: Bundle, available: Sequence[str], wanted: str, preferred: Sequence[str]
) -> str:
    """The precision to open: the one wanted, or the first preferred one that is available.

    Raises:
        BackendUnavailable: it is not there; the message lists what is.
    """
    order = preferred if wanted == "auto" else (wanted,)
    for precision in order:
        if precision in available:
            return precision
    raise BackendUnavailable(
        f"{bundle.path}: no {wanted} variant; it holds {', '.join(available) or 'none'};"
        " export it with --precision"
    )
