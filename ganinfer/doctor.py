"""What this host has to run, train and export generators with, and what each missing thing needs.

Everything is tried, not read off a list: a provider that is there may still fail to open.
"""

import os
import platform
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from ganinfer.errors import EXTRAS, BackendUnavailable
from ganinfer.host.limits import usable_cpus, usable_memory
from ganinfer.host.machine import Host, gpu_present, this_host
from ganinfer.host.tuned import folder, known

_VARIABLES = ("GANINFER_", "GANTRAIN_", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "XDG_CACHE_HOME")
_SECRET = "_KEY"
_ASKED_OF_SMI = ("name", "driver_version", "memory.total", "compute_cap")


@dataclass(frozen=True)
class Finding:
    """One thing of a host.

    Attributes:
        part: what was looked at.
        found: what was found, in words.
        missing: what it lacks, and what to do about it; empty if nothing.
    """

    part: str
    found: str
    missing: str = ""


def examine() -> list[Finding]:
    """All that a report of a fault should say of the host; nothing is changed."""
    host = this_host()
    return [
        _package(host),
        _processor(host),
        Finding("memory", f"{usable_memory() / 2**30:.1f} GiB for this process"),
        _gpu(),
        _tried("onnxruntime", _onnxruntime),
        _tried("openvino", _openvino),
        _tried("tensorrt", lambda: _tensorrt("tensorrt")),
        _tried("tensorrt-rtx", lambda: _tensorrt("tensorrt_rtx")),
        _tried("torch", _torch),
        _extras(),
        _tuned(),
        _caches(),
        _environment(),
    ]


def _package(host: Host) -> Finding:
    versions = [f"{name} {host.versions[name]}" for name in ("ganpipe", "numpy", "python")]
    return Finding("package", f"{', '.join(versions)}; {platform.platform()}; {sys.prefix}")


def _processor(host: Host) -> Finding:
    lacks = "" if usable_cpus() == os.cpu_count() else f" of {os.cpu_count()}"
    has = ", ".join(host.instructions) or "unknown"
    return Finding("processor", f"{host.cpu}, {host.cpus}{lacks} CPUs; {has}")


def _gpu() -> Finding:
    """As the driver tells it."""
    if not gpu_present():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        why = "CUDA_VISIBLE_DEVICES hides all" if hidden else "no device of NVIDIA's in /dev"
        remedy = "unset it" if hidden else "in a container, start it with --gpus all"
        return Finding("gpu", f"none: {why}", f"a GPU needs NVIDIA's driver; {remedy}")
    try:
        asked = [f"--query-gpu={','.join(_ASKED_OF_SMI)}", "--format=csv,noheader"]
        done = subprocess.run(["nvidia-smi", *asked], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("gpu", this_host().gpu or "", f"nvidia-smi does not answer: {error}")
    told = "; ".join(done.stdout.splitlines())
    if done.returncode:
        reason = " ".join((done.stdout + done.stderr).split())[:200]
        return Finding("gpu", this_host().gpu or "", f"nvidia-smi fails: {reason}")
    return Finding("gpu", f"{told} (name, driver, memory, compute capability)")


def _tried(part: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except (BackendUnavailable, ImportError) as error:
        return Finding(part, "not to be used", str(error))


def _onnxruntime() -> Finding:
    from ganinfer.backends.onnxruntime import installed, providers_here

    providers = providers_here()
    found = ", ".join(f"{name} {how}" for name, how in providers.items())
    missing = ""
    if gpu_present() and providers.get("CUDAExecutionProvider") != "opens":
        missing = "the GPU: pip install 'ganpipe[gpu]', and see what its log says"
    return Finding("onnxruntime", f"{installed()[0]}; {found}", missing)


def _openvino() -> Finding:
    from ganinfer.backends.openvino import capabilities_here

    capabilities = capabilities_here()
    return Finding("openvino", f"{_version('openvino')}; CPU: {', '.join(capabilities)}")


def _tensorrt(product: str) -> Finding:
    from ganinfer.backends._cuda import compute_capability
    from ganinfer.backends._tensorrt_library import load_library

    version = load_library(product).__version__
    try:
        return Finding(product.replace("_", "-"), f"{version}; {compute_capability(product)}")
    except BackendUnavailable as error:
        return Finding(product.replace("_", "-"), f"{version}; builds engines", f"to run: {error}")


def _torch() -> Finding:
    if find_spec("torch") is None:
        return Finding("torch", "none", "to train and export: pip install 'ganpipe[train,export]'")
    import importlib

    torch = importlib.import_module("torch")
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    return Finding("torch", f"{torch.__version__}, {built}; sees {torch.cuda.device_count()} GPUs")


def _extras() -> Finding:
    """What is installed of the optional packages, by extra."""
    lacking: dict[str, list[str]] = defaultdict(list)
    for module, extra in EXTRAS.items():
        lacking[extra] += [] if _is_there(module) else [module]
    there = sorted(extra for extra, modules in lacking.items() if not modules)
    absent = {extra: modules for extra, modules in sorted(lacking.items()) if modules}
    told = "; ".join(f"{extra} ({', '.join(modules)})" for extra, modules in absent.items())
    missing = f"{told}: pip install 'ganpipe[...]' with the names of those you need" if told else ""
    return Finding("extras", ", ".join(there) or "none", missing)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # of a module that is broken
        return False


def _tuned() -> Finding:
    """What `backend="auto"` opens here of bundles that were measured."""
    found = []
    for file in sorted(folder().glob("*.json")):
        if choices := known(file.stem):
            choice = choices[-1]
            found.append(f"{file.stem[:12]}: {choice.backend} {choice.precision}, {choice}")
    return Finding("tuned", "; ".join(found) or "no bundle was measured with these versions")


def _caches() -> Finding:
    from platformdirs import user_cache_path

    folder = user_cache_path("ganpipe")
    files = [file for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    size = sum(file.stat().st_size for file in files)
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    missing = "" if writable else f"{nearest} cannot be written into; set XDG_CACHE_HOME"
    return Finding("cache", f"{folder}: {len(files)} files, {size / 1e6:.1f} MB", missing)


def _environment() -> Finding:
    """Variables that change what runs; what is secret is not told."""
    names = sorted(name for name in os.environ if name.startswith(_VARIABLES))
    told = [f"{name}={'***' if _SECRET in name else os.environ[name]}" for name in names]
    return Finding("environment", ", ".join(told) or "nothing that matters here is set")


def _version(package: str) -> str:
    return this_host().versions.get(package, "of an unknown version")
