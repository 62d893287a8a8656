"""Which numbers are too large for fp16? What makes and takes them stays float32, and is named.

fp16 ends at 65,504; beyond it hardware computes with infinity. Sums of squares before a norm, as
in StyleGAN's demodulation, come there soonest. bf16 reaches as far as float32.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ganexport.graph.large import resaved, weight_array
from ganexport.graph.owners import layer_of_weight, layers_of
from ganexport.graph.precision import before_rounding, convert, emulate, spell_out, tensors_of_type
from ganexport.proof.reference import probes
from ganexport.subjects.subject import Subject
from ganinfer.backends.onnxruntime import OnnxRuntimeBackend
from ganinfer.bundle.manifest import GateResult, Precision, gate_result

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).tiny)  # below it there are fewer and fewer digits
MARGIN = 2.0  # for seeds that are not looked at
_MOST_IMAGES = 64
_PIXELS = 1 << 22  # of all images; beyond 256 x 256 there are fewer of them
_BATCH_PIXELS = 1 << 18
_ROUNDS = 8


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph, and how large its numbers get.

    Attributes:
        name: of the tensor. node, op: what makes it. inputs: of that node.
        layer: of the generator.
        largest: absolute value before rounding; infinity also stands for what is no number.
        in_half: whether it is then rounded to fp16.
    """

    name: str
    node: str
    op: str
    inputs: tuple[str, ...]
    layer: str
    largest: float
    in_half: bool

    @property
    def held(self) -> bool:
        """Can its type hold it?"""
        return self.largest <= (LARGEST if self.in_half else float(np.finfo(np.float32).max))


@dataclass(frozen=True)
class Overflowing:
    """What stays float32 in fp16.

    Attributes:
        nodes: their names.
        layers: those whose numbers fp16 does not hold, each with the largest; None where it is
            infinity, as when something is divided by what fp16 rounds to zero.
    """

    nodes: frozenset[str] = frozenset()
    layers: Mapping[str, float | None] = field(default_factory=dict)


def what_overflows(subject: Subject, graph: bytes) -> Overflowing:
    """Find the nodes that must stay float32, so that fp16 computes with finite numbers.

    They make or take what for the first seeds is more than half of fp16's largest number. If the
    fp16 graph then still has infinities that the float32 graph has not, it divides by what it has
    rounded to zero: they begin with infinities, or make or take what fp16 has only subnormal
    numbers for, or come before such a node.

    Args:
        subject: what is exported.
        graph: its float32 ONNX file.
    """
    single = {tensor.name: tensor for tensor in largest_values(subject, graph, "fp32")}
    named = [t for t in single.values() if t.held and t.largest > LARGEST / MARGIN]
    proto = onnx.load_from_string(graph).graph
    constants = _largest_weights(proto, graph)
    weights = {name: value for name, value in constants.items() if not value <= LARGEST}
    sizes = constants | {tensor.name: tensor.largest for tensor in single.values()}
    small = {name for name, value in sizes.items() if 0 < value < SMALLEST}
    origins = spell_out(proto)

    def around(tensors: Set[str]) -> set[str]:
        """What makes or takes them."""
        return {
            origins.get(node.name, node.name)
            for node in proto.node
            if not tensors.isdisjoint([*node.input, *node.output])
        }

    makers = {name: origins.get(n.name, n.name) for n in proto.node for name in n.output}
    keep = around({tensor.name for tensor in named} | weights.keys())
    for _ in range(_ROUNDS):
        found = largest_values(subject, convert(graph, "fp16", keep=keep), "fp16")
        first = [t for t in _beginnings(found) if t.name not in single or single[t.name].held]
        if not first:
            break
        named += [tensor for tensor in first if tensor.node not in keep]
        before = {name for t in first if t.node in keep for name in t.inputs}
        more = {tensor.node for tensor in first} | around(small)
        more |= {makers[name] for name in before if name in makers}
        if more <= keep:
            break  # what now begins with infinities fails its gate
        keep |= more
    of_weights = [(layer_of_weight(name) or name, largest) for name, largest in weights.items()]
    layers: dict[str, float] = {}
    for layer, largest in [*of_weights, *((tensor.layer, tensor.largest) for tensor in named)]:
        layers[layer] = max(largest, layers.get(layer, 0.0))
    return Overflowing(
        frozenset(keep),
        {layer: value if value < np.inf else None for layer, value in layers.items()},
    )


def overflow_gate(subject: Subject, graph: bytes) -> GateResult:
    """Is all that an fp16 graph computes in half precision within it?

    Args:
        subject: the reference.
        graph: ONNX file in fp16.
    """
    found = largest_values(subject, graph, "fp16")
    weights = _largest_weights(onnx.load_from_string(graph).graph, graph)
    masks = {name for name, largest in weights.items() if largest == np.inf}
    beyond = _beginnings(found, masks)
    halves = beyond[:1] or [tensor for tensor in found if tensor.in_half]
    largest = max((tensor.largest for tensor in halves), default=0.0)
    kept: dict[str, float | None] = {
        t.layer: t.largest for t in sorted(found, key=lambda t: t.largest) if _kept(t)
    }
    detail = ""
    if beyond:
        detail = (
            f"{_told(beyond[0])}; fp16 ends at {LARGEST:,.0f}, and hardware goes on with infinity:"
            " export it again, which keeps such layers in float32, or leave fp16 out"
        )
    elif kept:
        detail = f"kept in float32: {named_layers(kept)}"
    return gate_result(
        "onnx fp16 (emulated)",
        f"largest value / {LARGEST:,.0f}",
        largest / LARGEST,
        "<= 1",
        not beyond,
        detail,
        num_images=_num_images(subject),
    )


def named_layers(layers: Mapping[str, float | None]) -> str:
    """Layers with their largest numbers, in words."""
    return ", ".join(
        f"{layer} ({'not finite' if largest is None else f'values up to {largest:.3g}'})"
        for layer, largest in layers.items()
    )


@lru_cache(maxsize=2)
def largest_values(subject: Subject, graph: bytes, precision: Precision) -> tuple[Tensor, ...]:
    """All floating-point tensors of a graph, in its order, and their largest numbers.

    Args:
        subject: whose first seeds, each class in turn, are looked at.
        graph: ONNX file. precision: "fp32", or "fp16", which is emulated.
    """
    model = onnx.load_from_string(graph)
    origins = spell_out(model.graph)
    in_half = tensors_of_type(model, TensorProto.FLOAT16)
    wanted = in_half | tensors_of_type(model, TensorProto.FLOAT)
    file = emulate(graph, "fp16") if precision == "fp16" else graph
    run = onnx.load_from_string(file) if precision == "fp16" else model
    made = {name for node in run.graph.node for name in node.output}
    layers = layers_of(model.graph)
    outputs = [
        (name, node, layer)
        for node, layer in zip(model.graph.node, layers, strict=True)
        for name in node.output
        if name in wanted
    ]
    exact = [before_rounding(name) for name, _, _ in outputs]
    seen = [
        long if long in made else name for long, (name, _, _) in zip(exact, outputs, strict=True)
    ]
    largest = _measure(subject, run, file, seen)
    return tuple(
        Tensor(
            name,
            origins.get(node.name, node.name),
            node.op_type,
            tuple(node.input),
            layer,
            value,
            name in in_half,
        )
        for (name, node, layer), value in zip(outputs, largest, strict=True)
    )


def _measure(
    subject: Subject, model: onnx.ModelProto, file: bytes, names: Sequence[str]
) -> list[float]:
    """Largest absolute value of each tensor; the graph itself works it out, to save memory.

    The last tensor comes first, for then onnxruntime measures each as soon as it is there.
    """
    measuring = onnx.ModelProto()
    measuring.CopyFrom(model)
    graph = measuring.graph
    one = numpy_helper.from_array(np.array([1, 1], np.int64), "measure_one")
    graph.initializer.append(one)
    columns = []
    for index, name in reversed(list(enumerate(names))):
        size = f"measure_{index}_size"
        graph.node.append(helper.make_node("Abs", [name], [size]))
        # ReduceMax passes over what is no number; a sum does not.
        for op in ("ReduceMax", "ReduceSum"):
            scalar, column = f"measure_{index}_{op}", f"measure_{index}_{op}_column"
            graph.node.append(helper.make_node(op, [size], [scalar], keepdims=0))
            graph.node.append(helper.make_node("Reshape", [scalar, one.name], [column]))
            columns.append(column)
    graph.node.append(helper.make_node("Concat", columns, ["measure"], axis=1))
    del graph.output[:]
    shape = [1, len(columns)]
    graph.output.append(helper.make_tensor_value_info("measure", TensorProto.FLOAT, shape))
    backend = OnnxRuntimeBackend(resaved(measuring, file), "cpu", "fp32")
    num_images = _num_images(subject)
    inputs, _ = probes(subject, num_images)
    batch = max(1, _BATCH_PIXELS // _pixels(subject))
    rows = [backend.run(inputs.rows(start, start + batch)) for start in range(0, num_images, batch)]
    found = np.concatenate(rows).max(axis=0)[::-1]
    largest, sums = found[1::2], found[::2]
    return [float(value) for value in np.where(np.isfinite(sums), largest, np.inf)]


def _num_images(subject: Subject) -> int:
    return min(_MOST_IMAGES, max(2, _PIXELS // _pixels(subject)))


def _pixels(subject: Subject) -> int:
    height, width, _ = subject.model.shape
    return height * width


def _beginnings(tensors: Iterable[Tensor], infinite: Set[str] = frozenset()) -> list[Tensor]:
    """Those that their type cannot hold although it holds all that they are made of.

    infinite: weights that are so on purpose, such as masks of an attention.
    """
    found: list[Tensor] = []
    spoiled = set(infinite)
    for tensor in tensors:
        if not tensor.held:
            if spoiled.isdisjoint(tensor.inputs):
                found.append(tensor)
            spoiled.add(tensor.name)
    return found


def _largest_weights(graph: onnx.GraphProto, file: bytes) -> dict[str, float]:
    """Largest absolute value of each; file: that the graph was read from."""
    return {
        weight.name: float(np.abs(weight_array(weight, file)).max(initial=0.0))
        for weight in graph.initializer
        if weight.data_type == TensorProto.FLOAT
    }


def _kept(tensor: Tensor) -> bool:
    return not tensor.in_half and LARGEST < tensor.largest < np.inf


def _told(tensor: Tensor) -> str:
    reaches = "gives infinity" if tensor.largest == np.inf else f"reaches {tensor.largest:.3g}"
    return f"layer {tensor.layer}: {tensor.op} {tensor.node} {reaches}"
