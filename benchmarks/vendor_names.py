"""What vendors' libraries call their functions, classes and options, read from their wheels.

    pip download --no-deps onnxruntime-gpu==1.20.0   # or tensorrt_cu12_bindings==10.12.0.36, ...
    python benchmarks/vendor_names.py *.whl

writes a file for each wheel into tests/ganinfer/backends/vendor_names/, for
tests/ganinfer/backends/test_vendor_names.py. No GPU is needed: see stand_in_cuda.py.
Wheels of onnxruntime-gpu, of TensorRT's and TensorRT-RTX's bindings and of cuda-python, for the
Python that runs this.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import onnx
import stand_in_cuda

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "ganinfer" / "backends"))
import vendor_uses  # noqa: E402

NAMES = ROOT / "tests" / "ganinfer" / "backends" / "vendor_names"
# A wheel's name -> where its module is found, and the module.
MODULES = {
    "onnxruntime_gpu": (".", "onnxruntime"),
    "tensorrt_cu12_bindings": ("tensorrt_bindings", "tensorrt"),
    "tensorrt_rtx_cu12_bindings": ("tensorrt_rtx_bindings", "tensorrt_rtx"),
    "cuda_python": (".", "cuda.bindings.runtime"),
    "cuda_bindings": (".", "cuda.bindings.runtime"),
}
OPTIONS = {
    "TensorrtExecutionProvider": rb"(?<=\0)(?:trt_[a-z_]+|device_id)(?=\0)",
    "entries": rb"(?<=\0)(?:session\.[a-z_.]+|gpu_graph_id)(?=\0)",
}
SCRIPT = """
import importlib, json, sys
import vendor_uses  # noqa: E402
found = vendor_uses.names_of(importlib.import_module(sys.argv[1]), json.loads(sys.argv[2]))
if sys.argv[1] == "onnxruntime":
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[3], providers=["CUDAExecutionProvider"])
    options = session.get_provider_options()["CUDAExecutionProvider"]
    found["CUDAExecutionProvider"] = sorted(options)
print("\\n".join(f"{owner or '.'}: {' '.join(names)}" for owner, names in found.items()))
"""


def names(wheel: Path, model: Path) -> str:
    """Lines "Class: name name ..."; "." stands for the module itself."""
    folder, module = MODULES[wheel.name.split("-")[0]]
    uses = vendor_uses.uses()[module.removesuffix("_rtx")]
    with tempfile.TemporaryDirectory() as temporary:
        package, libraries = Path(temporary, "package"), Path(temporary, "libraries")
        libraries.mkdir()
        zipfile.ZipFile(wheel).extractall(package)
        stand_in_cuda.build(package, libraries)
        paths = (package / folder, Path(vendor_uses.__file__).parent)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "LD_LIBRARY_PATH": str(libraries),
        }
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, module, json.dumps(list(uses)), model],
            check=True, env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        lines = done.stdout
        if module == "onnxruntime":
            # Of these it tells no list: whatever in its libraries looks like one.
            content = b"".join(file.read_bytes() for file in sorted(package.rglob("*.so")))
            for owner, form in OPTIONS.items():
                found = {name.decode() for name in re.findall(form, content)}
                lines += f"{owner}: {' '.join(sorted(found))}\n"
        return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", nargs="+", type=Path)
    value = onnx.helper.make_tensor_value_info
    x, y = value("x", onnx.TensorProto.FLOAT, [1]), value("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "abs", [x], [y])
    opset = [onnx.helper.make_opsetid("", 20)]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "abs.onnx")
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), model)
        for wheel in parser.parse_args().wheels:
            name, version, *_ = wheel.name.split("-")
            (NAMES / f"{name}-{version}.txt").write_text(names(wheel, model))


if __name__ == "__main__":
    main()
