"""Draws a bundle's graph as one page: a flow of blocks, folded by the generator's layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2
import onnx
from onnx import TensorProto, helper

from ganexport.graph.large import file_bytes
from ganexport.graph.macs import Shape, dims, node_macs, shapes_of
from ganexport.graph.owners import layers_of
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import Precision
from ganinfer.files import write_atomic

_FLOATS = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


@dataclass(frozen=True)
class Layer:
    """A layer with what follows it up to the next: its operators, and the cost of one image.

    shape: of its last output, without the batch. precisions: what it is computed in, by variant.
    """

    name: str
    operators: Sequence[str]
    shape: Shape
    num_parameters: int
    macs: int
    precisions: Mapping[str, str]


@dataclass(frozen=True)
class Block:
    """Layers of one part of the generator; takes: the blocks whose tensors it takes."""

    name: str
    layers: Sequence[Layer]
    takes: Sequence[str]

    @property
    def num_parameters(self) -> int:
        """Of all its layers."""
        return sum(layer.num_parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.layers)


def draw_bundle(path: Path, output: Path) -> None:
    """Write a page about a bundle's graph that needs nothing else.

    Args:
        path: the bundle.
        output: the HTML file.

    Raises:
        BundleError: a file is damaged, missing or not declared.
    """
    with Bundle(path) as bundle:
        manifest = bundle.manifest
        graphs = {graph.precision: bundle.read_graph(graph.precision) for graph in manifest.graphs}
    variants = {name: onnx.load_from_string(data) for name, data in graphs.items()}
    graph = variants["fp32"].graph
    context = {
        "title": path.name,
        "manifest": manifest,
        "sizes": {name: file_bytes(data) for name, data in graphs.items()},
        "opset": variants["fp32"].opset_import[0].version,
        "values": [
            (kind, value.name, _dtype(value), dims(value))
            for kind, part in (("input", graph.input), ("output", graph.output))
            for value in part
        ],
        "blocks": blocks_of(variants),
        "num_nodes": len(graph.node),
    }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shape"] = lambda shape: " \u00d7 ".join(map(str, shape))
    environment.filters["short"] = short
    template = environment.from_string((files("ganexport.graph") / "drawing.html").read_text())
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, template.render(context).encode())


def blocks_of(variants: Mapping[Precision, onnx.ModelProto]) -> list[Block]:
    """The float32 graph, folded twice: nodes into layers, layers into blocks.

    Args:
        variants: the graphs by precision; "fp32" is among them.
    """
    graph = onnx.shape_inference.infer_shapes(variants["fp32"], data_prop=True).graph
    shapes, macs = shapes_of(graph), node_macs(graph)
    weights = {w.name: tuple(w.dims) for w in graph.initializer if w.data_type in _FLOATS}
    owners = layers_of(graph)
    precisions = {name: _precisions(variant.graph) for name, variant in variants.items()}
    layers: dict[str, dict[str, Layer]] = {}
    takes: dict[str, list[str]] = {}
    made_by: dict[str, str] = {value.name: value.name for value in graph.input}
    counted: set[str] = set()
    for node, owner, cost in zip(graph.node, owners, macs, strict=True):
        block = block_name(owner)
        made_by |= dict.fromkeys(node.output, block)
        new = {name for name in node.input if weights.get(name)} - counted
        counted |= new
        before = layers.setdefault(block, {}).get(owner)
        layers[block][owner] = Layer(
            owner,
            [*(before.operators if before else ()), node.op_type],
            shapes.get(node.output[0], ()),
            (before.num_parameters if before else 0) + sum(math.prod(weights[n]) for n in new),
            (before.macs if before else 0) + cost,
            before.precisions
            if before and before.precisions
            else {name: own[node.name] for name, own in precisions.items() if node.name in own},
        )
        takes.setdefault(block, []).extend(made_by[n] for n in node.input if n in made_by)
    return [
        Block(name, list(found.values()), [t for t in dict.fromkeys(takes[name]) if t != name])
        for name, found in layers.items()
    ]


def block_name(layer: str) -> str:
    """As in "blocks.0.norm1" -> "blocks.0"; what is not numbered within a part is one with it."""
    first, *rest = layer.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0][-1:].isdecimal() else first


def short(count: int) -> str:
    """1234567 -> "1.23 M"."""
    for size, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _precisions(graph: onnx.GraphProto) -> dict[str, str]:
    """What the nodes with weights are computed in."""
    types = {w.name: _FLOATS.get(w.data_type, "") for w in graph.initializer if w.dims}
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            types |= dict.fromkeys(node.output, "int8")
    found = {}
    for node in graph.node:
        own = [types[name] for name in node.input if types.get(name)]
        if node.name and own:
            found[node.name] = own[-1] if "int8" not in own else "int8"
    return found


def _dtype(value: onnx.ValueInfoProto) -> str:
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
