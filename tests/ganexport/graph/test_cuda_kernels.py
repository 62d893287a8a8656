"""No node of a recipe's graph falls to the CPU where onnxruntime runs it on CUDA.

cuda_kernels/ holds the kernels that onnxruntime-gpu has for graphs of our opset, in the oldest and
newest version; benchmarks/cuda_kernels.py keeps them, and lets onnxruntime itself place the nodes.
"""

import re
from pathlib import Path

import onnx
import pytest
from every_network import recipes

from ganexport.graph.precision import convert
from ganexport.graph.tracing import OPSET
from ganexport.subjects.rewrites import rewrite

KEPT = sorted((Path(__file__).parent / "cuda_kernels").glob("*.txt"))
Kernel = dict[str, set[str]]  # the types that it takes, by the name of the type in the operator


def kernels(file: Path) -> dict[str, list[Kernel]]:
    found: dict[str, list[Kernel]] = {}
    for line in file.read_text().splitlines():
        operator, *types = line.split()
        pairs = (one.partition("=") for one in types if one != "-=-")
        found.setdefault(operator, []).append({name: set(t.split(",")) for name, _, t in pairs})
    return found


def fallen(model: onnx.ModelProto, have: dict[str, list[Kernel]]) -> list[str]:
    """The nodes that no kernel takes."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {v.name: name_of(v.type.tensor_type.elem_type) for v in values}
    types |= {weight.name: name_of(weight.data_type) for weight in graph.initializer}
    found = []
    for node in graph.node:
        formal = onnx.defs.get_schema(node.op_type, OPSET, node.domain)
        given: dict[str, str] = {}
        for names, parameters in ((node.input, formal.inputs), (node.output, formal.outputs)):
            for index, name in enumerate(names):
                parameter = parameters[min(index, len(parameters) - 1)]  # the last may be variadic
                if name:
                    given |= {parameter.type_str: types[name], parameter.name: types[name]}
        takes = (
            all(given[name] in types for name, types in kernel.items() if name in given)
            for kernel in have.get(node.op_type, [])
        )
        if node.op_type != "Constant" and not any(takes):  # constants are weights by then
            found.append(f"{node.op_type} of {given}")
    return found


def name_of(element_type: int) -> str:
    """As a kernel names it: "float", "int64"."""
    return onnx.TensorProto.DataType.Name(element_type).lower()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.endswith("folder128") else [])
        for name in recipes()
    ],
)
def test_no_node_of_a_recipe_falls_to_the_cpu(name: str) -> None:
    subject = recipes()[name]()
    single = subject.to_onnx(rewrite(subject.twin()))
    for precision in ("fp32", "fp16"):
        model = onnx.load_from_string(convert(single, precision))
        assert model.opset_import[0].version == OPSET
        for file in KEPT:
            assert fallen(model, kernels(file)) == [], f"{precision}, onnxruntime-gpu {file.stem}"


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_a_node_without_a_kernel_is_found(file: Path) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {OPSET}]>
        g (int64[N] x) => (int64[N] y) {{
            a = Relu(x)
            y = BitShift <direction = "LEFT"> (a, a)
        }}"""
    )
    assert [re.match(r"\w+", node)[0] for node in fallen(model, kernels(file))] == [
        "Relu",
        "BitShift",
    ]
