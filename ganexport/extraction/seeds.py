"""Graphs that take seeds: a generator behind the draw, or the draw alone."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from ganexport.extraction.draw import Draw
from ganexport.graph.styles import rename
from ganinfer.drawing.model import Model

# Of old runtimes: the operators that bundles have, too.
_OPSET, _IR_VERSION = 18, 10
_FLAT: dict[int, np.generic] = {TensorProto.UINT8: np.uint8(128), TensorProto.FLOAT: np.float32(0)}


def put_before(draw: Draw, model: onnx.ModelProto) -> None:
    """Let a generator's graph, in place, take what a draw takes.

    Where the draw is not sound, images are flat: a plausible wrong image is worse than none.
    """
    graph, at = model.graph, draw.at
    (output,) = graph.output
    name, flat = output.name, _FLAT[output.type.tensor_type.elem_type]
    for taken, drawn in draw.drawn.items():
        rename(graph, taken, drawn)
    rename(graph, name, f"{name}.drawn")
    generator, before = list(graph.node), len(at.nodes)
    sound = at.reshaped(draw.sound, -1, 1, 1, 1)
    at("Where", sound, f"{name}.drawn", flat)
    at.nodes[-1].output[0] = name
    del graph.node[:], graph.input[:]
    graph.node.extend([*at.nodes[:before], *generator, *at.nodes[before:]])
    graph.input.extend(draw.inputs)
    graph.initializer.extend(at.constants)
    output.name = name


def alone(draw: Draw, model: Model) -> onnx.ModelProto:
    """A graph of the draw alone: z float32 (N, Z) [, labels or weights] [, psi].

    Where it is not sound, z is not a number.
    """
    at, weights = draw.at, model.class_input == "weights"
    shapes = {
        "z": ("z", TensorProto.FLOAT, [model.z_dim]),
        "y": ("weights", TensorProto.FLOAT, [len(model.classes)])
        if weights
        else ("labels", TensorProto.INT64, []),
        "truncation": ("psi", TensorProto.FLOAT, []),
    }
    drawn = dict(draw.drawn)
    drawn["z"] = at("Where", at.column(draw.sound), drawn["z"], np.float32(np.nan))
    graph = helper.make_graph(at.nodes, "draw", draw.inputs, [], at.constants)
    for taken, result in drawn.items():
        name, kind, shape = shapes[taken]
        rename(graph, result, name)
        graph.output.append(helper.make_tensor_value_info(name, kind, ["batch", *shape]))
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
