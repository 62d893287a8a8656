"""Which backend runs a bundle on this host: the one asked for, or the best that proves itself."""

import logging
from collections.abc import Callable
from importlib.util import find_spec

from ganinfer.backends._base import Backend
from ganinfer.backends._shared import release, shared
from ganinfer.bundle.archive import Bundle
from ganinfer.errors import BackendUnavailable, GanError, ParityError
from ganinfer.host.limits import usable_cpus
from ganinfer.host.machine import gpu_present
from ganinfer.lookup import Kind, check_has, find_module, find_part, held_function
from ganinfer.outside import is_own

log = logging.getLogger(__name__)

BACKEND = Kind(
    "ganinfer.backends",
    {
        "precisions": held_function("bundle"),
        "open": held_function("bundle", "device", "precision"),
    },
)
_MEMBERS = [*Backend.__annotations__, "run", "run_on_device", "close"]


def open_backend(
    bundle: Bundle, name: str, device: str, precision: str, *, prove: Callable[[Backend], None]
) -> tuple[Backend, str]:
    """Open a backend by name, or the best one that this host and bundle allow.

    Args:
        bundle: an opened bundle.
        name: module in this package, package.module of the user's own, or "auto": what was
            found fastest here, see `ganinfer.host.tuned`, if device and precision are "auto" as
            well; else
            the first that opens and gives the right images, of TensorRT, if the bundle has engines,
            onnxruntime on a GPU, OpenVINO, if it is installed, and onnxruntime on the CPU.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        precision: "auto", or one that the bundle holds.
        prove: raises ParityError of a backend that gives other images than it should; of "auto"
            the next one is then tried.

    Returns:
        The backend, for `ganinfer.backends._shared.release`, and in words why it was chosen.

    Raises:
        ConfigError: there is no backend of that name.
        BackendUnavailable: none can be opened; every reason is named.
        ParityError: those that open give other images.
    """
    if name != "auto":
        return _proven(bundle, name, device, precision, prove), "asked for"
    from ganinfer.host.tuned import recall

    refusals: list[str] = []
    if device == precision == "auto" and (choice := recall(bundle.sha256)):
        try:
            find_module(BACKEND.package, choice.backend, where="tuned")  # a file names ours alone
            tuned = _proven(bundle, choice.backend, choice.device, choice.precision, prove)
        except GanError as refusal:
            log.warning("%s: what was tuned for this host is no more: %s", bundle.path, refusal)
            refusals.append(f"tuned {choice.backend} {choice.precision}: {refusal}")
        else:
            return tuned, f"{'tuned' if choice.asked else 'fastest'} on this host: {choice}"
    wrong: ParityError | None = None
    for candidate, place in candidates(bundle, device):
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


def candidates(bundle: Bundle, device: str) -> list[tuple[str, str]]:
    """Backends and devices that "auto" tries, in this order."""
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
    """A backend that gives the right images; of ours, the one that others here have."""
    if is_own(name):
        backend = open_unproven(bundle, name, device, precision)
    else:
        key = (bundle.sha256, name, device, precision, str(usable_cpus()))
        backend = shared(key, lambda: open_unproven(bundle, name, device, precision))
    try:
        prove(backend)
    except BaseException:
        release(backend)
        raise
    return backend


def open_unproven(bundle: Bundle, name: str, device: str, precision: str) -> Backend:
    """A backend that has shown no images yet.

    Raises:
        ConfigError: there is none of that name, or what it opens is no Backend.
        BackendUnavailable: it cannot be opened here.
    """
    backend: Backend = find_part(BACKEND, name, where="backend").open(bundle, device, precision)
    if is_own(name):
        check_has(backend, _MEMBERS, where=f"backend {name}")
        backend.name = name  # whatever it calls itself, it is asked for by this one
    return backend


def precisions_of(bundle: Bundle, name: str) -> list[str]:
    """A bundle's precisions that a backend takes, on hosts where it opens."""
    held: list[str] = find_part(BACKEND, name, where="backend").precisions(bundle)
    return held
