"""What an extracted file says of itself: where it is from, and what its inputs and outputs mean."""

import json

import onnx
from onnx import helper

from ganexport.extraction.draw import truncation_mode
from ganexport.extraction.options import ExtractOptions
from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.model import Model

_PLANES = {1: "grey", 3: "RGB", 4: "RGBA"}


def metadata(bundle: Bundle, graph: onnx.GraphProto, options: ExtractOptions) -> dict[str, str]:
    """By names; what is no text is JSON. The same bundle and options give the same."""
    model = bundle.manifest.model
    meanings = _of_latents(model)
    if options.from_seeds:
        meanings = _of_seeds(model, truncation_mode(model, options.truncation_mode))
    meanings |= _of_outputs(model, options)
    found = {
        "bundle_sha256": bundle.sha256,
        "precision": options.precision,
        "inputs": json.dumps({value.name: meanings[value.name] for value in graph.input}),
        "outputs": json.dumps({value.name: meanings[value.name] for value in graph.output}),
    }
    if options.latents == "draw":
        del found["precision"]
    if bundle.manifest.license is not None:
        found["license"] = bundle.manifest.license
    if model.classes:
        found["classes"] = json.dumps(model.classes, ensure_ascii=False)
    return found


def describe(model: onnx.ModelProto, found: dict[str, str]) -> None:
    """Write it into a graph, in the place of whatever its exporter wrote."""
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted(found.items())))


def _of_seeds(model: Model, mode: str | None) -> dict[str, str]:
    """Of the inputs of a graph that draws."""
    taken = model.truncation_input
    span = "" if taken is None else f"; else from {taken.least:g} to {taken.largest:g}"
    weights = model.class_input == "weights"
    return {
        "seed": "int64 (N,): the 64 bits of an unsigned seed",
        "y": "float32 (N, K): weights of classes, of sum 1; none above 0: the seed's own class"
        if weights
        else "int64 (N,): a class, counted from 0; below 0: the seed's own",
        "truncation": f"float64 (N,), in mode {mode}; 0 or less: as trained{span}",
    }


def _of_latents(model: Model) -> dict[str, str]:
    """Of the inputs of a generator."""
    taken = model.truncation_input
    return {
        "z": f"float32 (N, Z): {model.z_distribution} latents",
        "y": "float32 (N, K): weights of classes, of sum 1"
        if model.class_input == "weights"
        else "int64 (N,): a class, counted from 0",
        "w": "float32 (N, L, D): styles",
        "truncation": ""
        if taken is None
        else f"float32 (N,): {taken.least:g} to {taken.largest:g}; {taken.untruncated:g} for none",
    }


def _of_outputs(model: Model, options: ExtractOptions) -> dict[str, str]:
    planes = _PLANES.get(model.channels, f"{model.channels} planes")
    found = {
        "images": f"uint8 (N, H, W, C): {planes}"
        if options.pixels == "uint8"
        else f"float32 (N, C, H, W): {planes}, black at -1 and white at 1, not clipped",
    }
    if options.latents == "draw":
        found |= {
            "z": "float32 (N, Z): the generator's z; not a number where a runtime cannot draw",
            "labels": "int64 (N,): the generator's y",
            "weights": "float32 (N, K): the generator's y",
            "psi": "float32 (N,): the generator's truncation",
        }
    return found
