"""Which layer of the generator a node of its graph belongs to."""

import onnx

_PREFIX = "generator."  # of the weights: see `ganexport.graph.SamplingGraph`


def layers_of_nodes(model: onnx.ModelProto) -> dict[str, str]:
    """Node name -> layer name, for every node that has a layer at or before it.

    A node with a weight belongs to the weight's layer; any other to the nearest one before it.
    """
    weights = {weight.name for weight in model.graph.initializer}
    found: dict[str, tuple[int, str]] = {}  # value -> (nodes since its layer, the layer)
    layers: dict[str, str] = {}
    for node in model.graph.node:
        own = [name for name in node.input if name in weights and name.startswith(_PREFIX)]
        before = [found[name] for name in node.input if name in found]
        if own:
            nearest = (0, own[0].removeprefix(_PREFIX).rpartition(".")[0])
        elif before:
            steps, layer = min(before)
            nearest = (steps + 1, layer)
        else:
            continue
        layers[node.name] = nearest[1]
        found |= dict.fromkeys(node.output, nearest)
    return layers
