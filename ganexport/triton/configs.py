"""The files config.pbtxt of a repository: what Triton is told of each model.

Z latent, K classes, (H, W, C) an image. A repository NAME holds

NAME             an ensemble: seed [, label or label_name] [, truncation] -> images
NAME_latents     in Python: seed [, label or label_name] [, truncation] -> z [, y] [, psi]
NAME_generator   onnxruntime or TensorRT: z [, y] [, truncation] -> images

and, if they are asked for,

NAME_png         an ensemble: seed [, label or label_name] [, truncation] -> png
NAME_packing     in Python: images -> png
"""

import json
from collections.abc import Mapping
from typing import Any

from ganexport.triton.options import TritonOptions
from ganinfer.backends._onnxruntime_cuda import cuda
from ganinfer.backends.onnxruntime_tensorrt import profile_shapes
from ganinfer.bundle.manifest import Engine
from ganinfer.drawing.model import Model
from ganinfer.scheduler.sizes import doubled_up_to

Message = dict[str, Any]


class Word(str):
    """A value of an enumeration, which stands without quotes."""


def to_text(message: Mapping[str, Any], indent: str = "") -> str:
    """A message in the text format of protocol buffers.

    Args:
        message: name -> a number, bool, text, `Word`, message, or a list of them: a field that is
            there several times.
        indent: that its lines begin with.
    """
    lines = []
    for name, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                lines.append(f"{indent}{name} {{\n{to_text(one, indent + '  ')}{indent}}}\n")
            else:
                text = str(one) if isinstance(one, Word) else json.dumps(one)
                lines.append(f"{indent}{name}: {text}\n")
    return "".join(lines)


def ensemble(name: str, model: Model, options: TritonOptions) -> Message:
    """NAME: what clients ask. It has no queue of its own: its steps have."""
    return _ensemble(name, model, options, _images(model), _steps(name, model))


def png_ensemble(name: str, model: Model, options: TritonOptions) -> Message:
    """NAME_png: the same for clients that want files.

    It is none of NAME's outputs: Triton gives no output that a later step takes, unless that step
    is asked for, too.
    """
    packing = _step(f"{name}_packing", {"images": "images"}, {"png": "png"})
    return _ensemble(f"{name}_png", model, options, _PNG, [*_steps(name, model), packing])


def latents(name: str, model: Model, options: TritonOptions) -> Message:
    """NAME_latents: draws what the generator takes."""
    return _python(f"{name}_latents", _asked(model), _drawn(model), options)


def packing(name: str, model: Model, options: TritonOptions) -> Message:
    """NAME_packing: makes files of images."""
    return _python(f"{name}_packing", [_images(model)], [_PNG], options)


def generator(name: str, model: Model, options: TritonOptions, engine: Engine | None) -> Message:
    """NAME_generator: the network. engine: of backend tensorrt."""
    inputs = [_tensor("z", "FP32", model.z_dim)]
    if model.classes:
        y = _class_input(model)
        inputs.append(y if model.class_input == "weights" else y | _PER_IMAGE)
    if model.truncation_input is not None:
        inputs.append(_tensor("truncation", "FP32", 1) | _PER_IMAGE)
    group: Message = {"count": options.instances}
    if options.device != "auto":
        group["kind"] = Word("KIND_CPU" if options.device == "cpu" else "KIND_GPU")
    if engine is not None:
        group["profile"] = [str(n) for n in range(len(engine.profiles))]
    config: Message = {
        "name": f"{name}_generator",
        "backend": "onnxruntime" if engine is None else "tensorrt",
        "max_batch_size": options.batch_size,
        "input": inputs,
        "output": [_images(model)],
        "instance_group": group,
        "dynamic_batching": _queue(options),
        "model_warmup": [_warmup(inputs, size) for size in doubled_up_to(options.batch_size)],
    }
    if engine is None and options.device != "cpu":
        config["optimization"] = {
            "execution_accelerators": {"gpu_execution_accelerator": _accelerators(model, options)}
        }
    return config


def _ensemble(
    name: str, model: Model, options: TritonOptions, output: Message, steps: list[Message]
) -> Message:
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": options.batch_size,
        "input": _asked(model),
        "output": output,
        "ensemble_scheduling": {"step": steps},
    }


def _steps(name: str, model: Model) -> list[Message]:
    """From what is asked to images."""
    asked, drawn = _names(_asked(model)), _names(_drawn(model))
    taken = {"truncation" if tensor == "psi" else tensor: tensor for tensor in drawn}
    return [
        _step(f"{name}_latents", asked, drawn),
        _step(f"{name}_generator", taken, {"images": "images"}),
    ]


def _python(
    name: str, inputs: list[Message], outputs: list[Message], options: TritonOptions
) -> Message:
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": options.batch_size,
        "input": inputs,
        "output": outputs,
        "instance_group": {"count": 1, "kind": Word("KIND_CPU")},
        "dynamic_batching": _queue(options),
    }


def _tensor(name: str, kind: str, *dims: int) -> Message:
    return {"name": name, "data_type": Word(f"TYPE_{kind}"), "dims": list(dims)}


# Triton has an axis beside that of the batch; the graph has none: (N,).
_PER_IMAGE: Message = {"reshape": {"shape": []}}
_PNG = _tensor("png", "STRING", 1)


def _images(model: Model) -> Message:
    return _tensor("images", "UINT8", *model.shape)


def _class_input(model: Model) -> Message:
    """y, a weight for each class if the graph takes them."""
    if model.class_input == "weights":
        return _tensor("y", "FP32", len(model.classes))
    return _tensor("y", "INT64", 1)


def _asked(model: Model) -> list[Message]:
    """What a client sends for an image."""
    inputs = [_tensor("seed", "UINT64", 1)]
    if model.classes:
        inputs.append(_tensor("label", "INT64", 1) | {"optional": True})
        inputs.append(_tensor("label_name", "STRING", 1) | {"optional": True})
    if model.truncation_modes:
        inputs.append(_tensor("truncation", "FP64", 1) | {"optional": True})
    return inputs


def _drawn(model: Model) -> list[Message]:
    """What is drawn for an image; psi is the generator's truncation, not the client's."""
    outputs = [_tensor("z", "FP32", model.z_dim)]
    if model.classes:
        outputs.append(_class_input(model))
    if model.truncation_input is not None:
        outputs.append(_tensor("psi", "FP32", 1))
    return outputs


def _names(tensors: list[Message]) -> dict[str, str]:
    return {tensor["name"]: tensor["name"] for tensor in tensors}


def _step(name: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Message:
    """A model's inputs and outputs -> their names in the ensemble."""
    return {
        "model_name": name,
        "model_version": -1,
        "input_map": _pairs(inputs),
        "output_map": _pairs(outputs),
    }


def _pairs(values: Mapping[str, str]) -> list[Message]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _queue(options: TritonOptions) -> Message:
    return {
        "default_queue_policy": {
            "timeout_action": Word("REJECT"),
            "default_timeout_microseconds": round(options.timeout_s * 1e6),
            "allow_timeout_override": True,
            "max_queue_size": options.max_queue,
        }
    }


def _warmup(inputs: list[Message], size: int) -> Message:
    """A batch that runs before the server is ready; zeros are a class, and a truncation."""
    given = [{"key": one["name"], "value": _zeros(one["data_type"], one["dims"])} for one in inputs]
    return {"name": f"{size} images", "batch_size": size, "inputs": given}


def _zeros(kind: Word, dims: list[int]) -> Message:
    return {"data_type": kind, "dims": dims, "zero_data": True}


def _accelerators(model: Model, options: TritonOptions) -> list[Message]:
    """What onnxruntime is told on a GPU: as `Sampler` tells it, float32 is float32."""
    _, on_cuda = cuda("cuda")
    del on_cuda["device_id"]  # Triton's business
    found = [{"name": "cuda", "parameters": _pairs(on_cuda)}]
    if options.backend == "onnxruntime_tensorrt":
        shapes = profile_shapes("trt", model, (1, options.batch_size, options.batch_size))
        found.insert(0, {"name": "tensorrt", "parameters": _pairs(shapes)})
    return found
