"""A network in another floating-point type, whatever its author keeps where."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_OF_TORCH = frozenset(vars(nn.Module()))  # parameters, buffers, hooks, ...


def cast(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy on the CPU whose floating-point tensors are of a type.

    Parameters, buffers, and tensors that are plain attributes of a module, alone or in lists,
    tuples and dicts, which `nn.Module.to` passes over.
    """
    twin = copy.deepcopy(network).to("cpu", dtype)
    for module in twin.modules():
        for name, value in vars(module).items():
            if name not in _OF_TORCH:
                vars(module)[name] = _cast(value, dtype)
    return twin


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to("cpu", dtype) if value.is_floating_point() else value.cpu()
    if type(value) in (list, tuple):
        return type(value)(_cast(part, dtype) for part in value)
    if type(value) is dict:
        return {key: _cast(part, dtype) for key, part in value.items()}
    return value


def nudged(network: nn.Module) -> nn.Module:
    """A copy each of whose weights is one float32 higher or lower, the same ones every time."""
    twin = copy.deepcopy(network)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in twin.parameters():
            up = torch.rand(weight.shape, generator=random) < 0.5
            far = torch.where(up, torch.inf, -torch.inf)
            weight.copy_(torch.nextafter(weight, far.to(weight.dtype)))
    return twin


class _Narrowings(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes whether something that is computed in float64 goes on in fewer digits."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.dtype in (torch.float32, torch.float16):
            taken = [value for value in args if isinstance(value, Tensor)]
            self.found |= any(value.dtype == torch.float64 for value in taken)
        return output


def computes_in_float64(network: nn.Module, *arguments: Tensor) -> bool:
    """Does a network that was cast to float64 work, and stay in it throughout?"""
    try:
        with torch.no_grad(), _Narrowings() as narrowings:
            images = network(*arguments)
    except Exception:  # whatever a stranger's forward raises
        return False
    return images.dtype == torch.float64 and not narrowings.found
