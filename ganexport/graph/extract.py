"""A plain ONNX file out of a bundle, for whoever feeds it himself: the bytes that were proven, cut.

What is cut off is the quantisation to uint8 at the end, and in a StyleGAN the mapping network at
the start, or the choice between it and styles that are given; every other node stays as it went
through the gates.
"""

from pathlib import Path

import onnx

from ganexport.graph.large import packed
from ganexport.graph.styles import cut, drop_styles, rename, start_at_styles
from ganexport.graph.tracing import float_images
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.large_onnx import LargeOnnx
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
        destination: the ONNX file; beyond 2 GB its weights lie beside it, in a file that it names.
        precision: which graph.
        pixels: "uint8": images (N, H, W, C) as the sampler gives them; "float": float32
            (N, C, H, W), nominally on [-1, 1], neither clipped nor rounded.
        latents: "z": z, and what else the generator takes, but no styles; "mapped": a StyleGAN's
            styles w float32 (N, L, D) alone, as `Sampler.mapped` gives them.

    Raises:
        BundleError: the bundle is damaged, or has no such graph.
        ExportError: the graph takes no styles, or there is no such option.
    """
    with Bundle(bundle) as opened:
        file = extracted(opened, precision=precision, pixels=pixels, latents=latents)
    if isinstance(file, LargeOnnx):
        write_atomic(destination.with_name(file.location), file.weights)
    write_atomic(destination, file)


def extracted(bundle: Bundle, *, precision: str, pixels: str, latents: str) -> bytes:
    """The file that `extract` writes; a `LargeOnnx` if its weights lie beside it."""
    for name, value, known in (("pixels", pixels, PIXELS), ("latents", latents, LATENTS)):
        if value not in known:
            raise ExportError(f"{name} {value!r}: expected {' or '.join(known)}")
    held = [graph.precision for graph in bundle.manifest.graphs]
    if precision not in held:
        raise BundleError(f"{bundle.path}: no {precision} graph; it holds {', '.join(held)}")
    graph = bundle.read_graph(precision)
    model = onnx.load_from_string(graph)
    inputs = [value.name for value in model.graph.input]
    if latents == "mapped":
        if "w" not in inputs:
            raise ExportError(
                f"{bundle.path}: mapped latents: its graphs take no styles; StyleGANs' do, once"
                " they are exported with this version"
            )
        start_at_styles(model.graph)
        inputs = ["w"]
    elif "w" in inputs:
        drop_styles(model.graph)
        inputs = [name for name in inputs if name not in ("w", "takes_w")]
    output = model.graph.output[0].name
    if pixels == "float":
        output = float_images(model)
    plain = cut(model, inputs, output)
    if pixels == "float":
        rename(plain.graph, output, "images")
    return packed(plain, graph)
