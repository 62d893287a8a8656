"""What TensorRT refuses, in words: which node, which layer of the generator, and what to do."""

import re
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from ganexport.engines.origins import layers_of_nodes

# What a refusal contains -> what helps.
ADVICE = {
    "SplitToSequence": "it has no sequences: give torch.split a list of sizes, or use torch.chunk",
    "SequenceAt": "it has no sequences: give torch.split a list of sizes, or use torch.chunk",
    "Attention": "export at opset 22 or below, where attention is made of products it takes",
    "legalUINT8": "it takes uint8 only as an output: let the cast to uint8 stand last",
    "filterWeightsBFloat16": "it has no transposed convolution in bfloat16: keep that layer in"
    " float32, as --precision bf16 does, or export fp16",
    "HW-specific datatypes: fp8": "float8 needs a GPU of sm89 or newer: leave that target out",
    "Could not find any implementation": "this GPU has no kernel for that layer in this precision:"
    " keep it in float32 with --auto-precision, or leave the precision out",
}


def explain_parser(errors: list[Any], onnx_model: bytes) -> str:
    """The parser's errors (trt.ParserError), each with its node, that node's layer and advice."""
    layers = _layers(onnx_model)
    told = []
    for error in errors:
        name, operator = error.node_name(), error.node_operator()
        words = " ".join(error.desc().splitlines()[:2])  # more lines are what follows from these
        where = f"{operator or 'the file'} {name}".strip()
        if layer := layers.get(name):
            where += f" (layer {layer})"
        # Of an operator that it does not know it says "false".
        told.append(f"{where}: {'not supported' if words == 'false' else words}")
        told += _advice(f"{operator} {words}")
    return "; ".join(dict.fromkeys(told))


def explain_builder(messages: list[str], onnx_model: bytes) -> str:
    """The builder's messages, with the layers of the nodes that they name, and advice."""
    words = "; ".join(messages) or "it gives no reason"
    layers = _layers(onnx_model)
    named = {
        layers[node]
        for node in layers
        if re.search(rf"(?<![\w.]){re.escape(node)}(?![\w.])", words)
    }
    told = [words]
    if named:
        told.append(f"layers named: {', '.join(sorted(named))}")
    return "; ".join(told + _advice(words))


def _advice(words: str) -> list[str]:
    return [advice for found, advice in ADVICE.items() if found in words]


def _layers(onnx_model: bytes) -> dict[str, str]:
    try:
        return layers_of_nodes(onnx.load_from_string(onnx_model))
    except DecodeError:  # it is no ONNX file, as the parser says
        return {}
