"""A plain ONNX file out of a bundle, for whoever feeds it himself: the bytes that were proven, cut.

What is cut off is the quantisation to uint8 at the end, and in StyleGAN2 the mapping network at the
start; every other node stays as it went through the gates.
"""

import re
from pathlib import Path

import onnx
from onnx.utils import Extractor

from ganexport.graph.tracing import float_images
from ganinfer.bundle.archive import Bundle
from ganinfer.errors import BundleError, ExportError
from ganinfer.files import write_atomic

PIXELS = ("uint8", "float")
LATENTS = ("z", "mapped")


def extract(
    bundle: Path,
    destination: Path,
    *,
    precision: str = "fp32",
    pixels: str = "uint8",
    latents: str = "z",
) -> None:
    """Write one of a bundle's graphs as an ONNX file of its own.

    Args:
        bundle: whose every byte is checked first.
        destination: the ONNX file.
        precision: which graph.
        pixels: "uint8": images (N, H, W, C) as the sampler gives them; "float": float32
            (N, C, H, W), nominally on [-1, 1], neither clipped nor rounded.
        latents: "z": as the sampler feeds it; "mapped": StyleGAN2's w (N, W), in the graph's type,
            instead of z and y, before psi draws it to the mean.

    Raises:
        BundleError: the bundle is damaged, or has no such graph.
        ExportError: the generator has no mapping network, or there is no such option.
    """
    for name, value, known in (("pixels", pixels, PIXELS), ("latents", latents, LATENTS)):
        if value not in known:
            raise ExportError(f"{name} {value!r}: expected {' or '.join(known)}")
    with Bundle(bundle) as opened:
        held = [graph.precision for graph in opened.manifest.graphs]
        if precision not in held:
            raise BundleError(f"{bundle}: no {precision} graph; it holds {', '.join(held)}")
        model = onnx.load_from_string(opened.read_graph(precision))
    inputs = {value.name for value in model.graph.input}
    output = model.graph.output[0].name
    if pixels == "float":
        output = float_images(model)
    mapped = _mapped(model.graph) if latents == "mapped" else None
    if mapped is not None:
        inputs = (inputs - {"z", "y"}) | {mapped}
    cut = Extractor(onnx.shape_inference.infer_shapes(model)).extract_model(
        sorted(inputs, key=["z", "y", mapped, "truncation"].index), [output]
    )
    if pixels == "float":
        _rename(cut.graph, output, "images")
    if mapped is not None:
        _rename(cut.graph, mapped, "w")
    for value in (*cut.graph.input, *cut.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(cut, full_check=True)
    write_atomic(destination, cut.SerializeToString(deterministic=True))


def _mapped(graph: onnx.GraphProto) -> str:
    """Name of the tensor w (N, W) that a mapping network gives.

    Raises:
        ExportError: there is none.
    """
    layers = {
        int(match[1]): node
        for node in graph.node
        if (match := re.fullmatch(r"mapping\.fc(\d+)", node.name))
    }
    if not layers:
        raise ExportError(
            "mapped latents: this generator has no mapping network; only StyleGANs have"
        )
    last: str = layers[max(layers)].output[0]
    activation = next(node for node in graph.node if last in node.input)
    assert activation.op_type == "LeakyRelu", activation.op_type
    w: str = activation.output[0]
    return w


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for slot, name in enumerate(names):
                if name == old:
                    names[slot] = new
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name == old:
            value.name = new
