"""The layers of a generator: their multiply-adds, and which of them a kernel belongs to."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ganinfer.backends._profile import Kernel
from ganinfer.bundle.onnx_nodes import Node, Nodes, Shape, nodes_of

INPUTS = "inputs"  # the layer of what comes before the first weight
# What a kernel is called that zeros make larger, by a pixel less than it computes at once along an
# axis: see `ganexport.graph.narrow`. They are no work that anybody asked for.
_WITH_ZEROS = "_pixels"


@dataclass(frozen=True)
class Layer:
    """A layer by the generator's own name.

    Attributes:
        macs: multiply-accumulates for one image, of its products of matrices.
        channels: of what its products give; None if it has none.
    """

    name: str
    macs: int
    channels: int | None


class Layers:
    """Those of a float32 ONNX file, in its order.

    A node that takes a parameter belongs to the parameter's layer; any other to that of the latest
    such node that it depends on, or to the inputs.
    """

    def __init__(self, graph: bytes) -> None:
        """Read the file."""
        nodes = nodes_of(graph)
        owners = _owners(nodes)
        macs: dict[str, int] = {INPUTS: 0}
        channels: dict[str, int] = {}
        for node in nodes.nodes:
            layer, found = owners[node.output], _macs(node, nodes)
            macs[layer] = macs.get(layer, 0) + found
            if found:
                channels[layer] = nodes.shapes[node.output][1 if "Conv" in node.op else -1]
        self.layers = tuple(Layer(name, macs[name], channels.get(name)) for name in macs)
        self._owners = {name: layer for name, layer in owners.items() if layer in macs}
        # Of each node's name and tensors, the layers that it takes from.
        self._sources = {
            name: [self._owners[taken] for taken in node.inputs if taken in self._owners]
            for node in nodes.nodes
            for name in (node.name, *node.outputs)
        }
        self._heavy = {layer.name for layer in self.layers if layer.macs}

    def of_kernels(self, kernels: Sequence[Kernel]) -> list[list[str]]:
        """The layers in each kernel; the first is the one that its time belongs to.

        That is the first of its names' which multiplies, or else the first. A kernel that goes by
        the name of a factor folded into the weights multiplies for the layer before it. What
        carries no name of the graph, such as a copy, belongs to what takes what it gives, or to
        what gives what it takes.
        """
        named = {kernel.name: self._named(kernel) for kernel in kernels}
        lost = self._heavy - {layer for found in named.values() for layer in found}
        for kernel in kernels:
            if not self._heavy & set(named[kernel.name]):
                before = [layer for name in kernel.nodes for layer in self._sources.get(name, ())]
                folded = [layer for layer in before if layer in lost]
                named[kernel.name] = [*folded[:1], *named[kernel.name]]
        takers = {kernel.name: list(kernel.feeds) for kernel in kernels}
        givers: dict[str, list[str]] = {kernel.name: [] for kernel in kernels}
        for kernel in kernels:
            for taker in kernel.feeds:
                givers.setdefault(taker, []).append(kernel.name)
        return [
            named[k.name]
            or _near(k.name, named, takers)
            or _near(k.name, named, givers)
            or [INPUTS]
            for k in kernels
        ]

    def _named(self, kernel: Kernel) -> list[str]:
        found = [owner for name in kernel.nodes if (owner := self._owner(name))]
        heavy = [owner for owner in found if owner in self._heavy]
        return list(dict.fromkeys([*heavy[:1], *found]))

    def _owner(self, name: str) -> str | None:
        """By a name of the graph, or by the longest that stands in what a runtime made of it."""
        if name in self._owners:
            return self._owners[name]
        within = [known for known in self._owners if known in name and _stands_in(known, name)]
        return self._owners[max(within, key=len)] if within else None


def _near(
    name: str, named: Mapping[str, list[str]], beside: Mapping[str, Sequence[str]]
) -> list[str]:
    """The layers of the nearest kernel with a name, in one direction."""
    seen, waiting = {name}, list(beside[name])
    while waiting:
        other = waiting.pop(0)
        if found := named.get(other):
            return found
        if other not in seen:
            seen.add(other)
            waiting += beside.get(other, ())
    return []


def _stands_in(known: str, name: str) -> bool:
    """Not as a part of a longer word."""
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(known)}(?![A-Za-z0-9])", name) is not None


def _owners(graph: Nodes) -> dict[str, str]:
    """The layer of every node, tensor and parameter, by name."""
    own = {name: _layer_of_weight(name) for name in graph.weights}
    made: dict[str, tuple[int, str]] = {}
    owners = {name: layer for name, layer in own.items() if layer}
    owners |= {name: INPUTS for node in graph.nodes for name in node.inputs if name not in own}
    for position, node in enumerate(graph.nodes):
        parameters = [own[name] for name in node.inputs if own.get(name)]
        before = [made[name] for name in node.inputs if name in made]
        source = (position, parameters[0]) if parameters else max(before, default=(-1, INPUTS))
        made |= dict.fromkeys(node.outputs, source)
        owners |= dict.fromkeys((node.name, *node.outputs), source[1])
    return {name: layer for name, layer in owners.items() if name}


def _layer_of_weight(name: str) -> str:
    return name.removeprefix("generator.").rpartition(".")[0]


def _macs(node: Node, graph: Nodes) -> int:
    """For one image; 0 for what is no product of matrices."""

    def shape(name: str) -> Shape:
        """Of a tensor without its batch; what is not fixed is 0."""
        return graph.shapes.get(name, (0, 0))[1:]

    if node.op in ("Conv", "ConvTranspose"):
        # A kernel goes into every number of the output or, transposed, of the input.
        numbers = shape(node.output if node.op == "Conv" else node.inputs[0])
        kernel = node.inputs[1]
        weight = graph.weights.get(kernel)
        channels, *size = weight.shape[1:] if weight else shape(kernel)
        if kernel.endswith(_WITH_ZEROS):
            at_once = shape(node.inputs[0])[1] // shape(node.output)[1]
            size = [n - at_once + 1 for n in size]
        return math.prod(numbers) * channels * math.prod(size)
    if node.op in ("Gemm", "MatMul"):
        return math.prod(shape(node.output)) * (shape(node.inputs[0]) or (0,))[-1]
    return 0
