"""Which names of CUDA's, TensorRT's and onnxruntime's our sources use, and which a module has.

The sources are read, not run: what a variable of theirs holds is told by `HOLDS`.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[3]
CUDA, TRT, ORT = "cuda.bindings.runtime", "tensorrt", "onnxruntime"

# File -> variable or attribute -> what it holds: a module, or an object of a module's class.
HOLDS = {
    "ganinfer/backends/_cuda.py": {"cuda": CUDA, "_cuda": CUDA},
    "ganinfer/backends/_tensorrt_library.py": {"trt": TRT},
    "ganinfer/backends/_tensorrt_profile.py": {
        "trt": TRT,
        "context": f"{TRT}:IExecutionContext",
    },
    "ganinfer/backends/_onnxruntime_profile.py": {
        "options": f"{ORT}:SessionOptions",
        "session": f"{ORT}:InferenceSession",
    },
    "ganinfer/backends/_tensorrt_rtx.py": {
        "trt": TRT,
        "engine": f"{TRT}:ICudaEngine",
        "config": f"{TRT}:IRuntimeConfig",
        "_cache": f"{TRT}:IRuntimeCache",
    },
    "ganinfer/backends/tensorrt.py": {
        "trt": TRT,
        "_trt": TRT,
        "_runtime": f"{TRT}:Runtime",
        "_engine": f"{TRT}:ICudaEngine",
        "inspector": f"{TRT}:EngineInspector",
        "context": f"{TRT}:IExecutionContext",
    },
    "ganinfer/backends/onnxruntime.py": {
        "ort": ORT,
        "options": f"{ORT}:SessionOptions",
        "session": f"{ORT}:InferenceSession",
        "_session": f"{ORT}:InferenceSession",
    },
    "ganinfer/backends/_onnxruntime_cuda.py": {"ort": ORT},
    "ganinfer/backends/_onnxruntime_bound.py": {
        "_ort": ORT,
        "_session": f"{ORT}:InferenceSession",
        "session": f"{ORT}:InferenceSession",
        "options": f"{ORT}:RunOptions",
        "binding": f"{ORT}:IOBinding",
    },
    "ganexport/engines/refusals.py": {"error": f"{TRT}:ParserError"},
    "ganexport/engines/report.py": {
        "network": f"{TRT}:INetworkDefinition",
        "of_network.layer": f"{TRT}:ILayer",
        "of_network.tensor": f"{TRT}:ITensor",
    },
    "ganexport/engines/targets.py": {"trt": TRT, "config": f"{TRT}:IBuilderConfig"},
    "ganexport/engines/tensorrt.py": {
        "trt": TRT,
        "builder": f"{TRT}:Builder",
        "config": f"{TRT}:IBuilderConfig",
        "network": f"{TRT}:INetworkDefinition",
        "parser": f"{TRT}:OnnxParser",
        "shapes": f"{TRT}:IOptimizationProfile",
        "_compile.tensor": f"{TRT}:ITensor",
    },
    "ganexport/engines/timings.py": {"config": f"{TRT}:IBuilderConfig"},
    "ganexport/extraction/formats.py": {"ort": ORT, "options": f"{ORT}:SessionOptions"},
}
# What every module has, and what no binding but the package around it has.
_OF_PYTHON = re.compile(r"__\w+__$")


def uses() -> dict[str, dict[str, str]]:
    """Module -> "name" or "Class.name" -> where it stands in our sources."""
    found: dict[str, dict[str, str]] = {CUDA: {}, TRT: {}, ORT: {}}
    for file, holds in HOLDS.items():
        tree = ast.parse((ROOT / file).read_text())
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        for function in functions or [tree]:
            for module, name, line in _of_function(function, holds):
                found[module].setdefault(name, f"{file}:{line}")
    return found


def _of_function(
    function: ast.FunctionDef, holds: dict[str, str]
) -> Iterator[tuple[str, str, int]]:
    for node in ast.walk(function):
        if not isinstance(node, ast.Attribute):
            continue
        path = _path(node)
        for start, variable in enumerate(path[:-1], 1):
            held = holds.get(f"{function.name}.{variable}", holds.get(variable))
            if held and not any(map(_OF_PYTHON.match, path[start:])):
                module, _, owner = held.partition(":")
                # What an object's attribute has is another class's affair.
                names = [owner, path[start]] if owner else path[start:]
                yield module, ".".join(names), node.lineno


def _path(node: ast.expr) -> list[str]:
    """The names of `a.b.c`; of a call's result and the like the last ones alone."""
    if isinstance(node, ast.Attribute):
        return [*_path(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else []


def files() -> set[str]:
    """The files that look into a module of theirs by one of its usual names."""
    found = set()
    for file in (f for p in ("ganinfer", "ganexport") for f in sorted((ROOT / p).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text())):
            path = _path(node) if isinstance(node, ast.Attribute) else []
            if {"trt", "_trt", "ort", "_ort"} & set(path[:-1]) or path[-1:] == ["cudaMalloc"]:
                found.add(file.relative_to(ROOT).as_posix())
    return found


def names_of(module: ModuleType, uses: Iterable[str]) -> dict[str, list[str]]:
    """What a module has: class -> all its names; "" -> the used ones of the module itself.

    Args:
        module: to look into.
        uses: "name" or "Class.name": their classes are told, where there are such.
    """
    own = {name.partition(".")[0] for name in uses}
    found = {"": sorted(name for name in own if hasattr(module, name))}
    owners = {name.rpartition(".")[0] for name in uses} - {""}
    owners |= {name for name in found[""] if isinstance(getattr(module, name), type)}
    for owner in sorted(owners):
        holder: Any = module
        for part in owner.split("."):
            holder = getattr(holder, part, None)
        found[owner] = [] if holder is None else [n for n in dir(holder) if n[0] != "_"]
    return found


def entries() -> set[str]:
    """The keys of onnxruntime's session and run entries that our sources write."""
    found = set()
    for file in HOLDS:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "").endswith(
                "config_entry"
            ):
                assert isinstance(node.args[0], ast.Constant)
                found.add(str(node.args[0].value))
    return found
