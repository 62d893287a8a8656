"""Styles in an exported graph: where it takes them, what of it makes them, and that part alone.

A graph with inputs w (N, L, D) and takes_w (N,) chooses by one `Where` between w and what the
mapping network before it gives. N images, L styles of length D.
"""

import onnx
from onnx.utils import Extractor

from ganexport.graph.large import check, inline
from ganinfer.errors import ExportError


def style_nodes(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that make styles and choose between them; none if it takes no w.

    They stay float32 in every precision: styles that are given then make the image that their z
    makes. The projects that train StyleGANs keep them so, too.
    """
    if all(value.name != "w" for value in graph.input):
        return set()
    makers = {name: node for node in graph.node for name in node.output}
    found: set[str] = set()
    waiting = [_choice(graph)]
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found.add(node.name)
            waiting += [makers[name] for name in node.input if name in makers]
    return found


def style_products(graph: onnx.GraphProto) -> set[str]:
    """Names of the matrix products of a graph that takes styles.

    They are the sums of squares that layers are divided by, and where StyleGAN3's waves stand: a
    few numbers an image on which all pixels depend, worth 13 dB in int8.
    """
    if all(value.name != "w" for value in graph.input):
        return set()
    return {node.name for node in graph.node if node.op_type == "MatMul"}


def cut_mapping(model: bytes) -> bytes:
    """The part of a float32 graph that makes styles: z [, y] [, truncation] -> w.

    Raises:
        ExportError: the graph does not choose its styles by one `Where`.
    """
    proto = onnx.load_from_string(model)
    given = {value.name for value in proto.graph.input}
    inputs = [name for name in ("z", "y", "truncation") if name in given]
    mapped = _choice(proto.graph).input[2]
    rename(proto.graph, "w", "w_given")
    rename(proto.graph, mapped, "w")
    part = cut(proto, inputs, "w")
    inline(part, model)
    return bytes(part.SerializeToString(deterministic=True))


def drop_styles(graph: onnx.GraphProto) -> None:
    """Let a graph use, in place, what its mapping network gives, whatever w says."""
    choice = _choice(graph)
    mapped, chosen = choice.input[2], choice.output[0]
    graph.node.remove(choice)
    rename(graph, chosen, mapped)


def start_at_styles(graph: onnx.GraphProto) -> None:
    """Let a graph use, in place, the w that it is given, whatever takes_w says."""
    choice = _choice(graph)
    chosen = choice.output[0]
    graph.node.remove(choice)
    rename(graph, chosen, "w")


def cut(model: onnx.ModelProto, inputs: list[str], output: str) -> onnx.ModelProto:
    """The part of a graph between some inputs and one output, of a dynamic batch."""
    typed = onnx.shape_inference.infer_shapes(model)
    part: onnx.ModelProto = Extractor(typed).extract_model(inputs, [output])
    for value in (*part.graph.input, *part.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    check(part)
    return part


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Call a tensor otherwise, everywhere."""
    for node in graph.node:
        for names in (node.input, node.output):
            for slot, name in enumerate(names):
                if name == old:
                    names[slot] = new
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name == old:
            value.name = new


def _choice(graph: onnx.GraphProto) -> onnx.NodeProto:
    """The node that chooses between the input w and styles of z."""
    takers: list[onnx.NodeProto] = [node for node in graph.node if "w" in node.input]
    if len(takers) != 1 or takers[0].op_type != "Where" or takers[0].input[1] != "w":
        found = ", ".join(node.op_type for node in takers) or "nothing"
        raise ExportError(
            f"w: {found} takes it; expected one torch.where(takes_w[:, None, None] > 0.5, w, styles"
            " of z), which chooses them before anything else sees them"
        )
    return takers[0]
