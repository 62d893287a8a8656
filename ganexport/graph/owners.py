"""Whose layer a node of a graph belongs to."""

import difflib
from collections.abc import Collection

import onnx

from ganinfer.errors import ExportError


def layer_of_weight(name: str) -> str:
    """The generator's layer that a weight of a graph belongs to; "" for a constant of no layer."""
    return name.removeprefix("generator.").rpartition(".")[0]


def layers_of(graph: onnx.GraphProto) -> list[str]:
    """The generator's layer of every node of a float32 graph.

    A node that takes a parameter belongs to the parameter's layer; any other to that of the latest
    such node that it depends on, or to the inputs.
    """
    names = [weight.name for weight in graph.initializer]
    owners = {name: layer_of_weight(name) for name in names}
    made_by: dict[str, tuple[int, str]] = {}
    found = []
    for position, node in enumerate(graph.node):
        own = [owners[name] for name in node.input if owners.get(name)]
        before = [made_by[name] for name in node.input if name in made_by]
        source = (position, own[0]) if own else max(before, default=(-1, "input"))
        made_by |= dict.fromkeys(node.output, source)
        found.append(source[1])
    return found


def nodes_of(model: bytes, layers: Collection[str]) -> frozenset[str]:
    """Names of the nodes of some layers, and of the layers inside them.

    Args:
        model: float32 ONNX file.
        layers: names of the generator's, or of nodes.

    Raises:
        ExportError: there is no such layer.
    """
    graph = onnx.load_from_string(model).graph
    owners = dict(zip([node.name for node in graph.node], layers_of(graph), strict=True))
    found: set[str] = set()
    for layer in layers:
        own = {
            node
            for node, owner in owners.items()
            if layer in (node, owner) or owner.startswith(f"{layer}.")
        }
        if not own:
            names = list(dict.fromkeys(owner for owner in owners.values() if owner != "input"))
            near = difflib.get_close_matches(layer, names, n=3) or names[:8]
            raise ExportError(f"--keep {layer}: no such layer; there are {', '.join(near)}, ...")
        found |= own
    return frozenset(found)
