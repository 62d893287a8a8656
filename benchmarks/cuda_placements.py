"""Where onnxruntime-gpu puts the nodes of graphs, as JSON; run by cuda_kernels.py, on stand-ins.

    python benchmarks/cuda_placements.py folder-of-graphs

For each graph: "refusal" if it opens neither with CUDA graphs nor without, "captured" if it opens
with them, "cuda": how many nodes are there, "cpu": the others, as "Operator name", and
"operators": how often each is there once all is fused. Then the kernels of CUDA, and what
`ganinfer` says of CUDA graphs after it has sampled a network that has no need of cuDNN.
"""

import collections
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi._pybind_state import get_all_opkernel_def

from ganexport.graph.tracing import OPSET
from ganinfer.backends import _onnxruntime_cuda
from ganinfer.backends._onnxruntime_cuda import Provider, cuda_attempts
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.drawing.inputs import Inputs

NO_CUDNN = "gan-mnist.fp32"

PLACED = re.compile(r"laced on \[(\w+)\]\. Number of nodes: (\d+)")
NODE = re.compile(r"VerifyEachNodeIsAssignedToAnEp\]?\s+(\w+) \((.*)\)")


def placement(file: Path, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for captured, providers in zip((True, False), cuda_attempts("cuda:0"), strict=True):
        found = {"captured": captured} | opened(file, providers, folder)
        if "refusal" not in found:
            break
    return found


def opened(file: Path, providers: list[Provider], folder: Path) -> dict[str, Any]:
    log, fused = folder / "log", folder / "fused.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 0
    options.optimized_model_filepath = str(fused)
    stderr = os.dup(2)
    with log.open("wb") as told:
        os.dup2(told.fileno(), 2)
        try:
            onnxruntime.InferenceSession(file, options, providers=providers, enable_fallback=0)
        except Exception as error:  # onnxruntime raises a dozen unrelated classes
            return {"refusal": str(error)}
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    graph = onnx.load(fused, load_external_data=False).graph
    operators = collections.Counter(f"{n.domain}.{n.op_type}".lstrip(".") for n in graph.node)
    return places(log.read_text(errors="replace")) | {"operators": operators}


def places(log: str) -> dict[str, Any]:
    cuda, cpu, place = 0, [], ""
    for line in log.splitlines():
        if match := PLACED.search(line):
            place = match[1]
            cuda += int(match[2]) * place.startswith("CUDA")
        elif (match := NODE.search(line)) and place.startswith("CPU"):
            cpu.append(f"{match[1]} {match[2]}")
    return {"cuda": cuda, "cpu": cpu}


def sampled(file: Path) -> str:
    """Batches of an unconditional network through the backend; the images are of no kernel."""
    _onnxruntime_cuda.gpu_present = lambda: True
    z_dim = onnx.load(file).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    backend = OnnxRuntimeBackend(file.read_bytes(), "cuda:0", "fp32")
    for n in (1, 4, 4, 1):
        images = backend.run(Inputs(np.zeros((n, z_dim), np.float32)))
        assert images.dtype == np.uint8
        assert len(images) == n
    backend.close()
    return backend.details["cuda_graphs"]


def kernels() -> list[str]:
    """Lines "Operator T=type,type ..." of those that serve graphs of our opset."""
    found: dict[tuple[str, ...], set[str]] = {}
    for kernel in get_all_opkernel_def():
        if kernel.provider != "CUDAExecutionProvider" or kernel.domain or not serves(kernel):
            continue
        types = [
            [name, ",".join(sorted(t.removeprefix("tensor(").removesuffix(")") for t in types))]
            for name, types in sorted(kernel.type_constraints.items())
        ] or [["-", "-"]]
        # Kernels that differ in their first type are told in one line.
        rest = [f"{name}={types}" for name, types in types[1:]]
        found.setdefault((kernel.op_name, types[0][0], *rest), set()).update(types[0][1].split(","))
    return sorted(
        " ".join([operator, f"{name}={','.join(sorted(types))}", *rest])
        for (operator, name, *rest), types in found.items()
    )


def serves(kernel: Any) -> bool:
    """Is it one for its operator as our opset has it? The rule is onnxruntime's."""
    try:
        since = onnx.defs.get_schema(kernel.op_name, OPSET).since_version
    except onnx.defs.SchemaError:
        return False
    first, last = kernel.version_range
    return bool(first == since or (first < since <= last and last < 2**31 - 1))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(Path(sys.argv[1]).glob("*.onnx"))
        found = {file.stem: placement(file, Path(folder)) for file in files}
    told = {file.stem: sampled(file) for file in files if file.stem == NO_CUDNN}
    print(json.dumps({"graphs": found, "kernels": kernels(), "sampled": told}))


if __name__ == "__main__":
    main()
