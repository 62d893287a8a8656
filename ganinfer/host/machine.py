"""What speed depends on besides the bundle: processors and versions."""

import functools
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from ganinfer.host.limits import usable_cpus

# Latents are drawn by numpy; the rest are backends.
_PACKAGES = (
    "ganpipe",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
)

# Instructions of a CPU that low precisions are faster by.
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI (int8)",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX-BF16",
    "amx_int8": "AMX-INT8",
    "asimddp": "dot product (int8)",
    "bf16": "BF16",
}


@dataclass(frozen=True)
class Host:
    """A machine, as this process sees it.

    Attributes:
        cpu: the processor's name. cpus: those that this process may use.
        instructions: of the processor, that low precisions are faster by.
        gpu: names of the NVIDIA GPUs; None if it is shown none.
        versions: of the packages that sampling runs on, and of Python.
    """

    cpu: str
    cpus: int
    instructions: list[str]
    gpu: str | None
    versions: dict[str, str]

    def __str__(self) -> str:
        versions = (f"{name} {version}" for name, version in self.versions.items())
        processor = ", ".join([self.cpu, f"{self.cpus} CPUs", *self.instructions])
        return "; ".join([processor, self.gpu or "no GPU", *versions])


def this_host() -> Host:
    """The machine at hand, looked at once: what is imported stays of its version."""
    return _host(usable_cpus(), gpu_present())


@functools.cache
def _host(cpus: int, has_gpu: bool) -> Host:
    import importlib.metadata  # slow, and most who open a bundle do without

    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu = _gpu_names() if has_gpu else None
    return Host(_cpu_name(), cpus, _instructions(), gpu, versions)


def processor() -> str:
    """The processor's name and all its instructions: what compiled code is right for."""
    cpuinfo = Path("/proc/cpuinfo")
    return " ".join([_cpu_name(), *_told(cpuinfo, "flags")[:1], *_told(cpuinfo, "Features")[:1]])


def gpu_present() -> bool:
    """Does this host show an NVIDIA GPU to this process? (A look at /dev; nothing is loaded.)"""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists() or os.name == "nt"


def _cpu_name() -> str:
    """The processor's name, where Linux tells it; else its architecture."""
    names = _told(Path("/proc/cpuinfo"), "model name")
    return names[0] if names else platform.processor() or platform.machine()


def _instructions() -> list[str]:
    """Those that are known by name, where Linux tells them."""
    words = processor().split()
    return [name for word, name in _INSTRUCTIONS.items() if word in words]


def _gpu_names() -> str:
    """The names that the driver tells without being loaded, which it does on Linux."""
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    names = [name for file in files for name in _told(file, "Model")]
    return ", ".join(names) or "NVIDIA GPU"


def _told(file: Path, key: str) -> list[str]:
    """The values of a key in lines such as "model name : AMD EPYC"."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in pairs if name.strip() == key]
