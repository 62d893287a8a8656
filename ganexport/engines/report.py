"""What is inside an engine: read from the engine on a GPU, from the parsed network elsewhere."""

import json
import re
from collections.abc import Mapping
from typing import Any

import onnx

from ganexport.engines.origins import layers_of_nodes
from ganexport.graph.large import weight_bytes
from ganinfer.bundle.engine_report import EngineLayer, EngineReport


def of_network(
    network: Any, onnx_model: bytes, plan: bytes, device_memory_bytes: int | None
) -> EngineReport:
    """Tell of a parsed INetworkDefinition.

    Constants and arithmetic on shapes, which come from no node, are left out.

    Args:
        network: what the parser made. onnx_model: what it read. plan: what was built of it.
        device_memory_bytes: of one context, as the builder tells it.
    """
    model = onnx.load_from_string(onnx_model)
    origins = layers_of_nodes(model)
    layers = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layers_in := _nodes(layer.metadata):
            inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
            outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
            layers.append(
                EngineLayer(
                    name=layer.name,
                    type=layer.type.name,
                    inputs=[tensor.dtype.name for tensor in inputs if tensor is not None],
                    outputs=[tensor.dtype.name for tensor in outputs],
                    layers=_origins(layers_in, origins),
                )
            )
    return EngineReport(
        read_from="network",
        weights_bytes=sum(map(weight_bytes, model.graph.initializer)),
        plan_bytes=len(plan),
        device_memory_bytes=device_memory_bytes,
        layers=layers,
    )


def of_engine(
    information: str, device_memory_bytes: int, onnx_model: bytes, parsed: EngineReport
) -> EngineReport:
    """Tell of an engine that was opened on a GPU.

    Args:
        information: the EngineInspector's JSON.
        device_memory_bytes: of one context.
        onnx_model: what the engine was built from.
        parsed: the report of its network.
    """
    origins = layers_of_nodes(onnx.load_from_string(onnx_model))
    layers = [
        EngineLayer(
            name=layer["Name"],
            type=layer.get("LayerType", ""),
            inputs=[_type(tensor) for tensor in layer.get("Inputs", [])],
            outputs=[_type(tensor) for tensor in layer.get("Outputs", [])],
            layers=_origins(_nodes(layer.get("Metadata", "")), origins),
        )
        for layer in json.loads(information)["Layers"]
    ]
    return parsed.model_copy(
        update={
            "read_from": "engine",
            "device_memory_bytes": device_memory_bytes,
            "layers": layers,
        }
    )


def _nodes(metadata: str) -> list[str]:
    """The ONNX nodes that a layer was made of; a fused one names several."""
    return re.findall(r"\[ONNX Layer: ([^\]]+)\]", metadata)


def _origins(nodes: list[str], origins: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(origins[node] for node in nodes if node in origins))


def _type(tensor: Mapping[str, Any]) -> str:
    # TensorRT 10 tells format and type in one field, 11 in two.
    return str(tensor.get("DataType") or tensor.get("Format/Datatype", ""))
