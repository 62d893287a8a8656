"""Torch's side of the gates where it draws fastest: on a GPU, where one is, or in channels_last.

On a GPU float32 goes without TF32. What a network's own rounding is, is asked of the network as it
stands, on the CPU.
"""

import copy
import time
from functools import lru_cache

import torch
from torch import Tensor, nn

from ganexport.subjects.casting import cast
from ganexport.subjects.subject import Subject, arguments_of
from ganinfer.drawing.inputs import Inputs

_AGREE = {torch.float32: 1e-2, torch.float64: 1e-6}  # on [-1, 1]; another network is farther off


def gpu() -> torch.device | None:
    """Where to draw; None for the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else None


@torch.no_grad()
def images_of(subject: Subject, inputs: Inputs, dtype: torch.dtype) -> Tensor:
    """The network's images (N, C, H, W) in float32 or float64, on the CPU.

    Args:
        subject: in float64 one that is `precise`.
        inputs: a batch. dtype: torch.float32 or torch.float64.
    """
    device = gpu()
    if device and (network := _on_gpu(subject, dtype, device)):
        return _drawn(network, inputs, dtype, device)
    if dtype == torch.float64:
        return subject.precisely(inputs)
    images: Tensor = _on_cpu(subject)(*arguments_of(inputs, dtype))
    return images


@lru_cache(maxsize=2)
def _on_gpu(subject: Subject, dtype: torch.dtype, device: torch.device) -> nn.Module | None:
    """The network there; None if it does not give the same images.

    A stranger's forward may name the CPU, or need more memory than the GPU has.
    """
    inputs = subject.example
    expected = subject.precisely(inputs) if dtype == torch.float64 else subject(inputs)
    try:
        network = cast(subject.network, dtype, device)
        found = _drawn(network, inputs, dtype, device)
    except Exception:
        return None
    return network if _agree(found, expected) else None


def _agree(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() <= _AGREE[expected.dtype])


def _drawn(network: nn.Module, inputs: Inputs, dtype: torch.dtype, device: torch.device) -> Tensor:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            images: Tensor = network(*(a.to(device) for a in arguments_of(inputs, dtype)))
    finally:
        torch.set_float32_matmul_precision(before)
    return images.cpu()


@lru_cache(maxsize=2)
def _on_cpu(subject: Subject) -> nn.Module:
    """The network, in channels_last if that is faster here and gives the same images."""
    if subject.is_large:
        return subject.network
    other = copy.deepcopy(subject.network)
    try:
        other.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        seconds, found = _timed(other, subject.example)
    except Exception:  # a forward that takes views which other strides do not have
        return subject.network
    usual, expected = _timed(subject.network, subject.example)
    return other if seconds < usual and _agree(found, expected) else subject.network


def _timed(network: nn.Module, inputs: Inputs) -> tuple[float, Tensor]:
    """Seconds of the second call, and its images."""
    arguments = arguments_of(inputs, torch.float32)
    network(*arguments)
    start = time.perf_counter()
    images: Tensor = network(*arguments)
    return time.perf_counter() - start, images
