"""What this machine has: all that the other stages depend on; works where packages are missing."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_day.day import Day, Skip, Values, check

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("train", "export", "dev")  # of the project, that the stages use
NOT_USED = {
    *("ganpipe", "build", "mypy", "ruff", "tensorboard", "openvino", "huggingface-hub"),
    *("cryptography", "polygraphy", "av", "pytest-xdist"),
}
SHOWN = (
    *("torch", "triton", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx"),
    *("cuda-python", "cuda-bindings", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "numpy", "onnx"),
)


def run(day: Day) -> None:
    day.row("host", host)
    day.row("packages", packages)
    day.row("what is missing", what_is_missing)
    day.row("driver", driver)
    day.row("torch", lambda: torch_facts(on_card=day.on_card))
    day.row("onnxruntime", providers_that_open)
    day.row("tensorrt", lambda: tensorrt_facts("tensorrt"))
    day.row("tensorrt_rtx", lambda: tensorrt_facts("tensorrt_rtx"))
    day.row("cuda-python", cuda_facts)


def host() -> Values:
    """Processor, memory, system."""
    from ganinfer.host.machine import this_host

    found = this_host()
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": found.cpu,
        "cpus": found.cpus,
        "memory_gib": pages * size / 2**30,
        "gpu": found.gpu or "none",
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def packages() -> Values:
    """Versions of what is installed."""
    return {name: found for name in SHOWN if (found := version(name))}


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def what_is_missing() -> Values:
    """Of the project's requirements, so that they can be brought along."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]
    names = [re.split(r"[<>=\[ ]", line)[0] for line in wanted]
    missing = sorted(n for n in set(names) - NOT_USED if version(n) is None)
    return check(not missing, found=", ".join(missing) or "nothing", allowed="nothing")


def driver() -> Values:
    """What the driver says of the GPU."""
    asked = (
        "name",
        "driver_version",
        "memory.total",
        "compute_cap",
        "clocks.max.sm",
        "power.limit",
    )
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except FileNotFoundError:
        raise Skip("needs a GPU: there is no nvidia-smi") from None
    if done.returncode:
        raise Skip(f"nvidia-smi: {(done.stdout + done.stderr).strip()[:300]}")
    cells = done.stdout.splitlines()[0].split(", ")
    return {**dict(zip(asked, cells, strict=False)), "gpus": len(done.stdout.splitlines())}


def torch_facts(*, on_card: bool) -> Values:
    """What torch was built with, and what it makes of the GPU."""
    import torch

    found: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "cudnn": torch.backends.cudnn.version() or "none",
        "sees_gpus": torch.cuda.device_count(),
        "tf32_matmul_by_default": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions_by_default": torch.backends.cudnn.allow_tf32,
    }
    if not on_card:
        return found
    properties = torch.cuda.get_device_properties(0)
    capability = (properties.major, properties.minor)
    free, total = torch.cuda.mem_get_info(0)
    return found | {
        "gpu": properties.name,
        "sm": f"sm{properties.major}{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": total / 2**30,
        "free_gib": free / 2**30,
        "tf32": capability >= (8, 0),
        "bf16": capability >= (8, 0),
        "fp8": capability >= (8, 9),
        "built_for": ", ".join(torch.cuda.get_arch_list()),
    }


def providers_that_open() -> Values:
    """Execution providers, and which of them really take a graph."""
    from ganinfer.backends.onnxruntime import installed, providers_here

    return {"version": installed()[0], **providers_here()}


def tensorrt_facts(product: str) -> Values:
    """The library's version, and whether it makes a builder and a runtime here."""
    if find_spec(product) is None:
        raise Skip(f"{product} is not installed")
    import importlib

    trt: Any = importlib.import_module(product)
    logger = trt.Logger(trt.Logger.ERROR)
    return {
        "version": trt.__version__,
        "builder": trt.Builder(logger) is not None,
        "runtime": trt.Runtime(logger) is not None,
    }


def cuda_facts() -> Values:
    """The CUDA runtime of cuda-python, by which engines are run."""
    from ganinfer.backends._cuda import compute_capability
    from ganinfer.errors import GanError

    try:
        return {"compute_capability": compute_capability("tensorrt_rtx", 0), "python": sys.version}
    except GanError as error:
        raise Skip(str(error)) from None
