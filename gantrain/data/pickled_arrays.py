"""Pickles of arrays, numbers and text, as CIFAR comes in: read without running anything.

`gantrain.pickle_machine` carries out their operations; the few names that NumPy's arrays need are
known to it here, and nothing is looked up. Arrays are views of the file's own bytes.
"""

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.pickle_machine import Global, Machine, PickleRefused, Stateful, broken

_CODES = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_MOST_AXES = 5


def read_arrays(path: Path) -> Any:
    """What one pickle holds: dicts, lists, numbers, text, bytes and arrays of whole numbers.

    Text that Python 2 wrote, and bytes that it holds, come as str of latin-1.

    Raises:
        DataError: it cannot be read, or asks for anything else; nothing in it was run.
    """
    try:
        built = Machine(_KNOWN).run(path.read_bytes())
    except PickleRefused as error:
        raise DataError(
            f"{path}: not a pickle of arrays: found {error}; nothing in it was run"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no whole pickle ({error}); fetch it again") from None
    return _plain(built)


def _plain(built: Any) -> Any:
    """Arrays as NumPy's, one level deep, as CIFAR has them."""
    if isinstance(built, dict):
        return {key: _array_of(value) for key, value in built.items()}
    return _array_of(built)


def _array_of(value: Any) -> Any:
    return value.values if isinstance(value, _Array) else value


class _Dtype(Stateful):
    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)

    def take_state(self, left: list[int], state: Any) -> None:  # noqa: ARG002
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|"):
            raise broken("a dtype without the order of its bytes")
        if state[1] != "|":
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(Stateful):
    values: NDArray[Any] = np.empty(0, np.uint8)

    def take_state(self, left: list[int], state: Any) -> None:  # noqa: ARG002
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Dtype):
            raise broken("an array without shape, dtype and numbers")
        _, shape, kind, is_fortran, data = state
        if not isinstance(shape, tuple) or len(shape) > _MOST_AXES:
            raise broken("an array without a shape")
        if not all(type(n) is int and 0 <= n < 2**32 for n in shape):
            raise broken("an array without a shape")
        data = _bytes_of(data)
        if len(data) != prod(shape) * kind.dtype.itemsize:
            raise broken(f"an array {shape} of {len(data):,} bytes")
        flat = np.frombuffer(data, kind.dtype)
        self.values = flat.reshape(shape[::-1]).T if is_fortran is True else flat.reshape(shape)


def _bytes_of(data: Any) -> bytes | bytearray:
    if isinstance(data, str):  # of Python 2
        try:
            return data.encode("latin-1")
        except UnicodeEncodeError:
            raise broken("numbers that are text") from None
    if not isinstance(data, bytes | bytearray):
        raise broken("numbers without bytes")
    return data


def _dtype(_: object, code: Any, *_align_and_copy: Any) -> _Dtype:
    if not isinstance(code, str) or code not in _CODES:
        raise broken("a dtype that is no whole number's")
    return _Dtype(code)


def _array(_: object, kind: Any, *_shape_and_dtype: Any) -> _Array:
    if kind != Global("numpy", "ndarray"):
        raise broken("an array that is not numpy's")
    return _Array()


def _from_buffer(left: list[int], data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """Of protocol 5."""
    array = _Array()
    array.take_state(left, (1, shape, dtype, order != "C", data))
    return array


def _scalar(left: list[int], dtype: Any, data: Any) -> int:
    array = _Array()
    array.take_state(left, (1, (), dtype, False, data))
    return int(array.values)


def _encode(_: object, text: Any, encoding: Any = "latin1") -> bytes | bytearray:
    """Bytes, as Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise broken("bytes in another encoding than latin-1")
    return _bytes_of(text)


_KNOWN: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): None,
}
for _core in ("numpy.core", "numpy._core"):
    _KNOWN |= {
        (f"{_core}.multiarray", "_reconstruct"): _array,
        (f"{_core}.multiarray", "scalar"): _scalar,
        (f"{_core}.numeric", "_frombuffer"): _from_buffer,
    }
