"""What an engine is built for.

`tensorrt`: "current" (the GPU that is here), "same-cc" (any of its compute capability), "ampere+"
(sm80 and newer). `tensorrt_rtx`: "portable", "sm89" and the like, "current". Plans for later
versions of the library are not among them: they hold host code, which a bundle has none of.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from ganinfer.backends._cuda import compute_capability
from ganinfer.backends._tensorrt_library import AMPERE_PLUS, PORTABLE, SAME_CC, oldest_gpu
from ganinfer.errors import BackendUnavailable, ExportError

Product = Literal["tensorrt", "tensorrt_rtx"]

CURRENT = "current"
_LEVELS = {AMPERE_PLUS: "AMPERE_PLUS", SAME_CC: "SAME_COMPUTE_CAPABILITY"}
_FIRST_WITH_FLOAT8 = 89


@dataclass(frozen=True)
class Target:
    """A target by its full name ("current" becomes "sm89", say), and what tells a builder of it.

    capability: trt.ComputeCapability of tensorrt_rtx. level: trt.HardwareCompatibilityLevel of
    tensorrt. Where both are None, the library does it unasked.
    """

    name: str
    capability: Any = None
    level: Any = None

    def configure(self, config: Any) -> None:
        """Tell a builder's config."""
        if self.capability is not None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(self.capability, 0)
        if self.level is not None:
            config.hardware_compatibility_level = self.level


def default_targets(product: Product) -> list[str]:
    """What is built for when no target is named."""
    return [CURRENT] if product == "tensorrt" else [PORTABLE]


def find_target(trt: ModuleType, product: Product, wanted: str) -> Target:
    """The target of a name.

    Raises:
        ExportError: the product cannot build for it, or not here.
    """
    if product == "tensorrt":
        return _of_tensorrt(trt, wanted)
    if wanted in _LEVELS:
        raise ExportError(
            f"target {wanted}: tensorrt has it; of tensorrt_rtx an engine for many GPUs is"
            f" --trt-target {PORTABLE}"
        )
    if wanted == PORTABLE:
        return Target(wanted)
    name = _gpu_here(product, wanted) if wanted == CURRENT else wanted
    known = {n.lower(): c for n, c in trt.ComputeCapability.__members__.items() if n[:2] == "SM"}
    if name not in known:
        raise ExportError(
            f"target {name}: tensorrt_rtx {trt.__version__} builds for {PORTABLE},"
            f" {', '.join(known)}"
        )
    return Target(name, capability=known[name])


def check_precision(target: str, precision: str) -> None:
    """Refuse float8 for a GPU that has none; a portable engine is the product's own affair.

    Raises:
        ExportError: names the target.
    """
    oldest = oldest_gpu(target)
    if precision == "fp8" and oldest is not None and oldest < _FIRST_WITH_FLOAT8:
        raise ExportError(
            f"target {target}: fp8 needs sm{_FIRST_WITH_FLOAT8} or newer; leave out the target or"
            " --precision fp8"
        )


def _of_tensorrt(trt: ModuleType, wanted: str) -> Target:
    if wanted not in (CURRENT, *_LEVELS):
        raise ExportError(
            f"target {wanted}: tensorrt builds on the GPU that is here: for {CURRENT},"
            f" {', '.join(_LEVELS)}; use --trt-product tensorrt_rtx for others"
        )
    here = _gpu_here("tensorrt", wanted)
    if wanted == CURRENT:
        return Target(here)
    level = getattr(trt.HardwareCompatibilityLevel, _LEVELS[wanted], None)
    if level is None:
        raise ExportError(f"target {wanted}: tensorrt {trt.__version__} lacks it; leave it out")
    if wanted == SAME_CC:
        return Target(f"{SAME_CC}-{here}", level=level)
    if int(here.removeprefix("sm")) < 80:
        raise ExportError(f"target {wanted}: has to be built on sm80 or newer, this GPU is {here}")
    return Target(wanted, level=level)


def _gpu_here(product: Product, wanted: str) -> str:
    try:
        return compute_capability(product)
    except BackendUnavailable as reason:
        raise ExportError(f"target {wanted}: {reason}") from None
