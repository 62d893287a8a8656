"""A network in another floating-point type, whatever its author keeps where."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
_OF_TORCH = frozenset(vars(nn.Module()))  # parameters, buffers, hooks, ...
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def cast(network: nn.Module, dtype: torch.dtype, device: torch.device = CPU) -> nn.Module:
    """A copy on a device whose floating-point tensors are of a type, complex ones of its pairs.

    Parameters, buffers, and tensors that are plain attributes of a module, which `nn.Module.to`
    passes over; of all `held_modules`. A tensor that was computed from weights, of which torch
    makes no copy, becomes its value.
    """
    held = [tensor for module in held_modules(network) for tensor in _tensors(vars(module))]
    computed = {id(tensor): tensor.detach().clone() for tensor in held if not tensor.is_leaf}
    twin = copy.deepcopy(network, memo=computed)
    for module in held_modules(twin):
        module._apply(lambda tensor: _cast(tensor, dtype, device))  # type: ignore[no-untyped-call]
        for name, value in vars(module).items():
            if name not in _OF_TORCH:
                vars(module)[name] = _cast(value, dtype, device)
    return twin


def _cast(value: Any, dtype: torch.dtype, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        if value.is_complex():
            return value.to(device, _COMPLEX[dtype])
        return value.to(device, dtype) if value.is_floating_point() else value.to(device)
    if type(value) in (list, tuple):
        return type(value)(_cast(part, dtype, device) for part in value)
    if type(value) is dict:
        return {key: _cast(part, dtype, device) for key, part in value.items()}
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Of a plain attribute."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def held_modules(network: nn.Module) -> list[nn.Module]:
    """A network's modules, and those in its plain attributes, also in lists, tuples and dicts."""
    seen: dict[int, Any] = {}

    def look(value: Any) -> None:
        if id(value) in seen or not isinstance(value, nn.Module | list | tuple | dict):
            return
        seen[id(value)] = value
        if isinstance(value, nn.Module):
            value = vars(value)  # its children are in one of these, too
        for part in value.values() if isinstance(value, dict) else value:
            look(part)

    look(network)
    return [value for value in seen.values() if isinstance(value, nn.Module)]


def nudged(network: nn.Module) -> nn.Module:
    """A copy each of whose weights is one float32 higher or lower, the same ones every time.

    So are buffers, for there are networks that keep weights in them; but no whole number, which
    is what it stands for, as in a mask or an index.
    """
    twin = copy.deepcopy(network)
    random = torch.Generator().manual_seed(0)

    def nudge(weight: Tensor) -> Tensor:
        up = torch.rand(weight.shape, generator=random) < 0.5
        near = torch.nextafter(weight, torch.where(up, torch.inf, -torch.inf).to(weight.dtype))
        return torch.where(weight == weight.round(), weight, near)

    weights = {
        id(weight): weight
        for module in held_modules(twin)
        for weight in (*module.parameters(), *module.buffers())
        if weight.is_floating_point()
    }
    for weight in weights.values():
        weight.data = nudge(weight.data)
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
