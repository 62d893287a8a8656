"""What the globals build that NVIDIA's pickles name: tensors, arrays, and instances of classes.

The source of the classes is dropped unread. No tensor is larger than its storage, no storage larger
than the bytes that are there.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from gantrain.pickle_machine import Global, Machine, Stateful, broken, key_of, spend

MOST_AXES = 5
OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save wrote before zip files
DTYPES = {
    ("torch", f"{name}Storage"): dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
    }.items()
}
NUMBERS = {"b1": "?", "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I"}
NUMBERS |= {"i8": "q", "u8": "Q", "f2": "e", "f4": "f", "f8": "d"}  # numpy's codes -> struct's
STORAGES = dict.fromkeys(DTYPES)  # they may be named, and not called


@dataclass(frozen=True, eq=False)
class Instance:
    """Of a class whose source the file holds."""

    class_name: str
    state: dict[Any, Any]


class Dtype(Stateful):
    """Numpy's, of numbers.

    Attributes:
        code: numpy's, without the order of the bytes.
    """

    def __init__(self, code: str) -> None:
        self.code = code

    def take_state(self, left: list[int], state: Any) -> None:  # noqa: ARG002
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", "|"):
            raise broken("numbers that are not little-endian")


class Array(Stateful):
    """Numpy's, of numbers in the order of C."""

    shape: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def take_state(self, left: list[int], state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], Dtype):
            raise broken("an array without shape, dtype and numbers")
        self.values = _numbers(left, state[2], state[4])
        if not _is_shape(state[1]) or prod(state[1]) != len(self.values) or state[3] is not False:
            raise broken(f"an array of {len(self.values)} numbers and another shape")
        self.shape = state[1]


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers within the bytes of a file."""

    data: bytes
    start: int
    count: int
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor in a storage, which it lies within."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def tensor(self) -> Tensor:
        """A copy of it, and of nothing else in its storage."""
        storage = self.storage
        if not prod(self.shape):
            return torch.empty(self.shape, dtype=storage.dtype)
        size = storage.dtype.itemsize
        flat = np.frombuffer(storage.data, f"<i{size}", storage.count, storage.start)
        own = as_strided(flat[self.offset :], self.shape, [size * step for step in self.strides])
        bits = torch.from_numpy(own.copy())
        return bits.bool() if storage.dtype == torch.bool else bits.view(storage.dtype)


# What there is for each global that may be called. The first argument is how many operations
# are left; the others are the file's.


def _instance(_: object, meta: Any) -> Instance:
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise broken("an object that is no class's")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise broken("an object without class_name or state")
    return Instance(name, state)


def _storage(left: list[int], data: Any) -> Storage:
    """The bytes that torch.save gives for one storage, in its format from before zip files.

    Raises:
        PickleRefused: they hold something else, or fewer numbers than they declare.
    """
    if not isinstance(data, bytes) or not data.startswith(OLD_TORCH):
        raise broken("tensors in another format than the one that pickle makes torch.save take")
    file, machine = io.BytesIO(data), Machine(STORAGES, left, persistent=True)
    _, _, system, found, keys = (machine.run(file) for _ in range(5))
    start = file.tell() + 8
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise broken("tensors that are not little-endian")
    if not isinstance(found, tuple) or len(found) != 6 or found[0] != "storage":
        raise broken("no storage where there should be one")
    if not isinstance(found[1], Global) or not isinstance(keys, list) or len(keys) != 1:
        raise broken("several storages where there should be one")
    dtype, count = DTYPES[found[1].module, found[1].name], found[4]
    if type(count) is not int or data[start - 8 : start] != struct.pack("<q", count):
        raise broken("a storage that declares two sizes")
    if not 0 <= count * dtype.itemsize <= len(data) - start:
        raise broken(f"a storage of {count:,} numbers in {len(data):,} bytes")
    return Storage(data, start, count, dtype)


def _tensor(
    _: object, storage: Any, offset: Any, shape: Any, strides: Any, *_grad_and_hooks: Any
) -> Stored:
    if not isinstance(storage, Storage) or not _is_shape(shape) or not _is_shape(strides):
        raise broken("a tensor without storage, shape or strides")
    if type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise broken("a tensor of another rank than its strides")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if prod(shape) > storage.count or (prod(shape) and last >= storage.count):
        raise broken(f"a tensor {str(shape)[:60]} in a storage of {storage.count:,} numbers")
    return Stored(storage, offset, shape, strides)


def _parameter(_: object, data: Any, *_grad_and_hooks: Any) -> Stored:
    if not isinstance(data, Stored):
        raise broken("a parameter that is no tensor")
    return data


def _dtype(_: object, code: Any, *_align_and_copy: Any) -> Dtype:
    if not isinstance(code, str) or code not in NUMBERS:
        raise broken("a dtype that is no number's")
    return Dtype(code)


def _scalar(left: list[int], dtype: Any, data: Any) -> float:
    values = _numbers(left, dtype, data)
    if len(values) != 1:
        raise broken("a number of another length than its dtype")
    return values[0]


def _array(_: object, kind: Any, *_shape_and_dtype: Any) -> Array:
    if kind != Global("numpy", "ndarray"):
        raise broken("an array that is not numpy's")
    return Array()


def _array_of(left: list[int], data: Any, dtype: Any, shape: Any, order: Any) -> Array:
    """Of protocol 5."""
    array = Array()
    array.take_state(left, (1, shape, dtype, order != "C", data))
    return array


def _numbers(left: list[int], dtype: Any, data: Any) -> tuple[float, ...]:
    if not isinstance(dtype, Dtype) or not isinstance(data, bytes | bytearray):
        raise broken("numbers without dtype or bytes")
    kind = NUMBERS[dtype.code]
    count, rest = divmod(len(data), struct.calcsize(f"<{kind}"))
    if rest:
        raise broken("numbers in bytes of another length")
    spend(left, count)
    return struct.unpack(f"<{count}{kind}", data)


def _dict(_: object) -> dict[Any, Any]:
    return {}


def _set(left: list[int], items: Any = ()) -> set[str | bytes | int]:
    if not isinstance(items, list):
        raise broken("a set that is not made of a list")
    spend(left, len(items))
    return {key_of(item) for item in items}


def _is_shape(value: object) -> bool:
    """Or strides: no axis is huge, and an empty one does not make room for huge others."""
    if not isinstance(value, tuple) or len(value) > MOST_AXES:
        return False
    if not all(type(n) is int and 0 <= n < 2**40 for n in value):
        return False
    return 0 not in value or max(value) < 2**12


KNOWN: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _instance,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): _dict,
    ("builtins", "set"): _set,
    ("dnnlib.util", "EasyDict"): _dict,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): None,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_of,
    ("numpy._core.numeric", "_frombuffer"): _array_of,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
}
