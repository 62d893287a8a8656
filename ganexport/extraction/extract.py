"""A file out of a bundle, for whoever feeds a runtime himself: the graph that was proven, cut.

What is cut off is the quantisation to uint8 at the end, and in a StyleGAN the mapping network at
the start, or the choice between it and styles that are given; every other node stays as it went
through the gates. A draw before it, and another format than ONNX, are proven here.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from ganexport.extraction.check import check_draw, check_images, golden_feed
from ganexport.extraction.draw import draw_of, truncation_mode
from ganexport.extraction.formats import FORMATS, Files, opened
from ganexport.extraction.metadata import describe, metadata
from ganexport.extraction.options import ExtractOptions
from ganexport.extraction.seeds import alone, put_before
from ganexport.graph.large import check, packed
from ganexport.graph.styles import cut, drop_styles, rename, start_at_styles
from ganexport.graph.tracing import float_images
from ganinfer.backends._base import pick_precision
from ganinfer.bundle.archive import Bundle
from ganinfer.errors import ExportError
from ganinfer.files import write_atomic


def extract(bundle: Path, destination: Path, options: ExtractOptions | None = None) -> None:
    """Write one of a bundle's graphs as a file of its own.

    Args:
        bundle: whose every byte is checked first.
        destination: the file, name.onnx, name.ort or name.xml; beside it lie the weights of an ONNX
            file that has more than 2 GB of them, and the name.bin of OpenVINO.
        options: by default its fp32 graph, as it is.

    Raises:
        BundleError: the bundle is damaged.
        ExportError: it cannot be had in that form, or does not make the golden images in it.
        BackendUnavailable: there is no such graph; the format's runtime is not installed, or
            refuses it.
    """
    options = options or ExtractOptions()
    suffix = FORMATS[options.format].suffix
    if destination.suffix != suffix and options.format != "onnx":
        raise ExportError(f"{destination}: expected a name that ends in {suffix}")
    with Bundle(bundle) as source:
        files = _files(source, options, destination.name)
        _prove(source, options, files)
    for name, data in reversed(files.items()):  # what a file needs is there before it
        write_atomic(destination.with_name(name), data)


def extracted(bundle: Bundle, options: ExtractOptions) -> bytes:
    """The ONNX file that `extract` writes; a `LargeOnnx` if its weights lie beside it."""
    described = bundle.manifest.model
    mode = truncation_mode(described, options.truncation_mode)
    if options.latents == "draw":
        model, graph = alone(draw_of(described, mode), described), b""
    else:
        model, graph = _generator(bundle, options)
        if options.latents == "seed":
            put_before(draw_of(described, mode), model)
    describe(model, metadata(bundle, model.graph, options))
    check(model)
    return packed(model, graph)


def _generator(bundle: Bundle, options: ExtractOptions) -> tuple[onnx.ModelProto, bytes]:
    """A generator's graph, cut, and the file that has its weights."""
    held = [graph.precision for graph in bundle.manifest.graphs]
    graph = bundle.read_graph(pick_precision(bundle, held, options.precision, []))
    model = onnx.load_from_string(graph)
    inputs = [value.name for value in model.graph.input]
    if options.latents == "mapped":
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
    if options.pixels == "float":
        output = float_images(model)
    plain = cut(model, inputs, output)
    rename(plain.graph, output, "images")
    return plain, graph


def _files(bundle: Bundle, options: ExtractOptions, name: str = "") -> Files:
    form = FORMATS[options.format]
    return form.write(extracted(bundle, options), name or f"graph{form.suffix}")


def _prove(bundle: Bundle, options: ExtractOptions, files: Files) -> None:
    """Let files that are not the proven graph itself draw, and make the golden images.

    With the draw before it a graph makes those that it makes of z, to the bit.
    """
    if options.latents == "draw":
        mode = truncation_mode(bundle.manifest.model, options.truncation_mode)
        check_draw(bundle.manifest.model, mode, opened(FORMATS[options.format], files))
    elif options.latents == "seed":
        drawing = replace(options, latents="draw")
        _prove(bundle, drawing, _files(bundle, drawing))
        plain = replace(options, latents="z", truncation_mode=None)
        images = _golden_images(bundle, options, files)
        of_z = _golden_images(bundle, plain, _files(bundle, plain))
        if images.tobytes() != of_z.tobytes():
            raise ExportError(
                f"{bundle.path}: with the draw before it the graph makes other images than of z"
                " in this runtime; take --latents z, and draw as docs/draw.md says"
            )
    elif options.format != "onnx":
        _golden_images(bundle, options, files)


def _golden_images(bundle: Bundle, options: ExtractOptions, files: Files) -> NDArray[Any]:
    """What files make of the golden seeds, which is what the bundle allows."""
    run = opened(FORMATS[options.format], files)
    images = run(golden_feed(bundle, options.latents))["images"]
    check_images(bundle, options.precision, images)
    return images
