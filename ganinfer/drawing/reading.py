"""What callers have in their hands, read as arrays: lists, tensors, columns of tables."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import RequestError

_DLPACK_CUDA = 2  # its kDLCUDA


class SupportsArray(Protocol):
    """What np.asarray takes: NumPy's own, torch's tensors, columns and tables of pandas."""

    def __array__(self) -> NDArray[Any]:
        """Its content."""


class SupportsDLPack(Protocol):
    """What torch.from_dlpack, cupy.from_dlpack and numpy.from_dlpack take without a copy."""

    def __dlpack__(self, *, stream: Any = None) -> Any:
        """A capsule that keeps the memory alive."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Kind and number of the device."""


AnyArray = SupportsArray | SupportsDLPack


def read(name: str, values: Any) -> NDArray[Any]:
    """An array of what a caller gave, without a copy where it can be; nothing is checked of it.

    Args:
        name: of the argument, for messages.
        values: a scalar, a sequence, also of rows, or what NumPy or DLPack can read on the host.

    Returns:
        Of any type and shape; a scalar has no axes. A sequence of integers is int64, with floats
        among them float64; one of text is text. One of anything else, or of both, is of objects,
        so that nothing in it becomes what it was not.

    Raises:
        RequestError: it is on another device, or none of these.
    """
    if type(values) is np.ndarray:
        array = values
    else:
        try:
            array = _converted(name, values)
        except RequestError:
            raise
        except Exception as error:  # of any library
            raise _unreadable(name, values, error) from None
    if array.dtype.kind == "V" and array.dtype.name == "bfloat16":  # as JAX has it
        return array.astype(np.float32)
    return array


def single(name: str, value: Any) -> Any:
    """What an array or tensor of no axes holds, as Python has it; anything else as it is.

    Raises:
        RequestError: it has axes, or is on another device.
    """
    if not (hasattr(value, "__array__") or hasattr(value, "__dlpack__")):
        return value
    array = read(name, value)
    if array.ndim:
        raise RequestError(f"{name}: found {described(array)}; expected a single value")
    return array.item()


def described(array: NDArray[Any]) -> str:
    """What was found, in one line: a scalar itself, of others the type and shape."""
    if not array.ndim:
        return repr(array.item())
    missing = " with NaN" if array.dtype.kind == "f" and np.isnan(array).any() else ""
    return f"{array.dtype} {array.shape}{missing}"


def _converted(name: str, values: Any) -> NDArray[Any]:
    if isinstance(values, list | tuple):
        return _of_list(name, values)
    torch = sys.modules.get("torch")
    if isinstance(values, getattr(torch, "Tensor", ())):
        return _of_tensor(name, values)
    if isinstance(values, np.ndarray) and np.ma.is_masked(values):
        raise RequestError(f"{name}: holds masked values; leave them out")
    if hasattr(values, "__array__"):
        return np.asarray(values)
    if hasattr(values, "__dlpack__"):
        return np.from_dlpack(values)
    if isinstance(values, bytes | bytearray | memoryview):
        raise RequestError(
            f"{name}: found {type(values).__name__}; say what they are, as by np.frombuffer or"
            " decode"
        )
    if isinstance(values, Sequence) and not isinstance(values, str):
        return _of_list(name, list(values))
    if isinstance(values, Iterable) and not isinstance(values, str):
        raise RequestError(
            f"{name}: found {type(values).__name__}; expected a list or an array; make one of it,"
            f" as by {'sorted' if isinstance(values, set | frozenset) else 'list'}({name})"
        )
    return np.asarray(values)


def _of_list(name: str, values: Sequence[Any]) -> NDArray[Any]:
    kinds = set(map(type, values))
    if kinds <= {int}:
        return _integers(values)
    if kinds <= {str}:
        return np.array(values)
    if all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds):
        return _integers([int(value) for value in values])
    numbers = (int, float, np.integer, np.floating)
    if all(issubclass(kind, numbers) and kind is not bool for kind in kinds):
        return np.array(values, np.float64)
    items = [_item(name, value) for value in values]
    if any(not isinstance(item, np.ndarray) for item in items):
        return np.fromiter(items, object, len(items))
    if len(shapes := {item.shape for item in items}) > 1:
        raise ValueError(f"its rows have the shapes {', '.join(map(str, sorted(shapes)))}")
    return np.stack(items)


def _integers(values: Sequence[int]) -> NDArray[Any]:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, object)


def _item(name: str, value: Any) -> Any:
    """Of a list: a row as an array; what is none as it is."""
    is_list = isinstance(value, list | tuple)
    if not (is_list or hasattr(value, "__array__") or hasattr(value, "__dlpack__")):
        return value
    array = read(name, value)
    return array if array.ndim else array.item()


def _of_tensor(name: str, tensor: Any) -> NDArray[Any]:
    """Torch's, which NumPy refuses if it has a gradient, or is of bfloat16."""
    if tensor.device.type != "cpu":
        raise _elsewhere(name, tensor.device)
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype is sys.modules["torch"].bfloat16:
        tensor = tensor.float()
    array: NDArray[Any] = tensor.numpy()
    return array


def _elsewhere(name: str, device: object) -> RequestError:
    return RequestError(f"{name}: lies on {device}; copy it to the host first, as by {name}.cpu()")


def _unreadable(name: str, values: Any, error: Exception) -> RequestError:
    try:
        kind, index = values.__dlpack_device__()
    except Exception:  # there is no such method, or it fails
        kind, index = None, None
    if kind == _DLPACK_CUDA:
        return _elsewhere(name, f"cuda:{index}")
    reason = " ".join(str(error).split()) or type(error).__name__
    return RequestError(f"{name}: found {type(values).__name__}, which NumPy cannot read: {reason}")
