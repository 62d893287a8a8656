"""From the tensors of a request to images, and to the tensors of its answer; see `v2`.

N images, Z latent, H, W, C of an image.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.images import Images, check_picture, encode_pngs
from ganinfer.sampler import Sampler
from ganinfer.server.answers import malformed, too_large
from ganinfer.server.service import Service
from ganinfer.server.tensors import LARGE, InferenceRequest, Output, Tensor, integer

Outputs = list[tuple[str, bool]]  # names, and whether they are binary
Given = ParamSpec("Given")
Result = TypeVar("Result")


async def aside(
    small: bool, work: Callable[Given, Result], *args: Given.args, **options: Given.kwargs
) -> Result:
    """What work gives: at once if it is small, else in a thread beside the event loop."""
    if small:
        return work(*args, **options)
    return await asyncio.to_thread(work, *args, **options)


def drawing(
    service: Service,
    sampler: Sampler,
    asked: InferenceRequest,
    tensors: dict[str, Tensor],
    *,
    longest_s: float,
) -> Coroutine[Any, Any, Images]:
    """What draws the images of a request, once it is awaited.

    Args:
        service, sampler: who draws them.
        asked, tensors: the request, and its inputs by name.
        longest_s: within which they must be there; the request may say less.

    Raises:
        HTTPException: 400 malformed, 413 too many images.
        RequestError: something that the model cannot serve.
    """
    if unknown := set(tensors) - {"seed", "z", "label", "truncation"}:
        raise malformed(f"inputs: found {min(unknown)}; expected seed or z, and label, truncation")
    if ("seed" in tensors) == ("z" in tensors):
        raise malformed("inputs: expected either seed or z")
    first = "seed" if "seed" in tensors else "z"
    n = images_of(tensors)
    if n == 0:
        raise malformed(f"{first}: found no image; expected the shape [N, ...]")
    service.check_size(sampler, n)
    labels = _labels(tensors.get("label"), n)
    truncation = _truncation(tensors.get("truncation"))
    mode, timeout_s = asked.parameters.get("truncation_mode"), timeout_of(asked, longest_s)
    if mode is not None and not isinstance(mode, str):
        raise malformed("truncation_mode: expected a text")
    if first == "seed":
        return sampler.asample(
            seeds=_column("seed", tensors["seed"], "UINT64", n),
            labels=labels,
            truncation=truncation,
            truncation_mode=mode,
            timeout_s=timeout_s,
        )
    if mode is not None:
        raise malformed("truncation_mode: found beside z; it goes with seed")
    z = _numbers("z", tensors["z"], "FP32").reshape(tensors["z"].shape)
    return sampler.agenerate(z, labels, truncation=truncation, timeout_s=timeout_s)


def images_of(tensors: dict[str, Tensor]) -> int:
    """N, as the first of seed and z that is there has it; 0 without any."""
    shapes = [tensors[name].shape for name in ("seed", "z") if name in tensors]
    return shapes[0][0] if shapes and shapes[0] else 0


def wanted_outputs(
    service: Service, sampler: Sampler, asked: InferenceRequest, tensors: dict[str, Tensor]
) -> Outputs:
    """The outputs of a request: `images` if it names none.

    Raises:
        HTTPException: 400 malformed, 413 more numbers than JSON may have.
        RequestError: the model's images are no pictures, and png is asked for.
    """
    default = asked.parameters.get("binary_data_output", False)
    wanted = []
    for output in asked.outputs:
        if output.name not in ("images", "png"):
            raise malformed(f"outputs: found {output.name!r:.40}; expected images, png")
        if "shared_memory_region" in output.parameters or "classification" in output.parameters:
            raise malformed(f"{output.name}: neither shared memory nor classes are served")
        wanted.append((output.name, output.parameters.get("binary_data", default)))
    wanted = wanted or [("images", default)]
    if len({name for name, _ in wanted}) < len(wanted):
        raise malformed("outputs: one is there twice")
    for name, binary in wanted:
        if not isinstance(binary, bool):
            raise malformed(f"{name}: binary_data: expected true or false")
        if name == "png":
            if not binary:
                raise malformed("png: files are no JSON; ask for it with binary_data")
            check_picture(sampler.shape[2])
        elif not binary:
            count = images_of(tensors) * math.prod(sampler.shape)
            if count > service.serving.max_body_bytes:
                raise too_large(f"images: {count} numbers are too many for JSON; use binary_data")
    return wanted


def outputs_of(wanted: Outputs, images: Images) -> list[Output]:
    """The outputs of an answer.

    Args:
        wanted: which.
        images: uint8 (N, H, W, C).
    """
    return [
        Output(name, binary, files=encode_pngs(images))
        if name == "png"
        else Output(name, binary, pixels=images)
        for name, binary in wanted
    ]


def is_small(wanted: Outputs, images: Images) -> bool:
    """Whether making an answer takes no time to speak of; files and JSON do."""
    return wanted == [("images", True)] and images.nbytes <= LARGE


def _numbers(name: str, tensor: Tensor, kind: str) -> NDArray[Any]:
    """The values of an input, which must be of a type."""
    if tensor.datatype != kind:
        raise malformed(f"{name}: found {tensor.datatype}; expected {kind}")
    assert isinstance(tensor.values, np.ndarray)
    return tensor.values


def _column(name: str, tensor: Tensor, kind: str, n: int) -> NDArray[Any]:
    """One value an image, (N,)."""
    values = _numbers(name, tensor, kind)
    _check_column(name, tensor, n)
    return values


def _check_column(name: str, tensor: Tensor, n: int) -> None:
    if tensor.shape not in ((n,), (n, 1)):
        raise malformed(f"{name}: found the shape {list(tensor.shape)}; expected [{n}] or [{n}, 1]")


def _labels(tensor: Tensor | None, n: int) -> NDArray[np.int64] | list[str] | None:
    """A class for each image, by number or name."""
    if tensor is None:
        return None
    if tensor.datatype != "BYTES":
        return _column("label", tensor, "INT64", n)
    _check_column("label", tensor, n)
    return list(tensor.values)


def _truncation(tensor: Tensor | None) -> float | None:
    """One value, however often it is there."""
    if tensor is None:
        return None
    if tensor.datatype == "FP32":
        raise malformed("truncation: found FP32; expected FP64, as 0.7 is another number in FP32")
    values = set(_numbers("truncation", tensor, "FP64").tolist())
    if len(values) != 1:
        raise malformed(f"truncation: found {len(values)} values; expected one a request")
    found: float = values.pop()
    return found


def timeout_of(asked: InferenceRequest, longest_s: float) -> float:
    """The protocol's timeout is in microseconds; 0 is the longest there is."""
    microseconds = integer("timeout", asked.parameters.get("timeout", 0))
    if microseconds < 0:
        raise malformed(f"timeout: found {microseconds}; expected microseconds, 0 or more")
    if microseconds == 0 or microseconds > 1e6 * longest_s:
        return longest_s
    return microseconds / 1e6
