"""Networks that stylegan2-ada-pytorch and stylegan3 pickled, read without running anything.

Such a `.pkl` holds the source of its classes beside their attributes, and `pickle.load` runs it.
Here the operations of the format are carried out one by one, and all they can build is numbers,
text, lists, dicts and tensors. A global is a pair of names, never looked up; one that such files do
not need is refused by these names. The source of the classes is dropped unread.

What a file may cost is bounded: NUM_OPERATIONS in all, where each number of an array counts as one;
keys are text or small numbers, which hash fast; no tensor is larger than its storage, no storage
larger than the bytes that are there. Nothing here recurses into what a file nests.
"""

import io
import logging
import mmap
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ganinfer.errors import ExportError

log = logging.getLogger(__name__)

NUM_OPERATIONS = 500_000  # G, D and G_ema of 1024x1024 take about 30,000
LARGEST = 4 * 2**30  # bytes; the largest that are published have 400 million
DEEPEST = 32  # of modules within modules
LONGEST = 64  # of a module's or a tensor's own name
MOST_AXES = 5
OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save wrote before zip files
WRITTEN_BY_TORCH = (b"PK\x03\x04", OLD_TORCH)
STORAGES = {
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
REMEDY = "if you trust who made it, save torch.save(G_ema.state_dict(), 'g.pt') where it was made"


class Published(dict[str, Tensor]):
    """A state dict with what else its file says.

    Attributes:
        modules: name of each ("" for the network) -> its class and attributes.
    """

    modules: "dict[str, Instance]"


@dataclass(frozen=True, eq=False)
class Instance:
    """Of a class whose source the file holds."""

    class_name: str
    state: dict[Any, Any]


@dataclass(frozen=True)
class Global:
    """A name, and nothing behind it."""

    module: str
    name: str

    def __str__(self) -> str:
        return ascii(f"{self.module}.{self.name}"[:120])[1:-1]


@dataclass(eq=False)
class Array:
    """numpy's, or its dtype, whose "shape" is None; BUILD fills it."""

    code: str = ""
    shape: tuple[int, ...] | None = None
    values: tuple[float, ...] = ()


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
        """A copy of it."""
        storage = self.storage
        if not prod(self.shape):
            return torch.empty(self.shape, dtype=storage.dtype)
        size = storage.count * storage.dtype.itemsize
        data = bytearray(memoryview(storage.data)[storage.start : storage.start + size])
        flat = torch.frombuffer(data, dtype=storage.dtype)
        return flat.as_strided(self.shape, self.strides, self.offset).contiguous()


def is_plain(path: Path) -> bool:
    """Was a file written by `pickle.dump`, and not by `torch.save`?"""
    try:
        with path.open("rb") as file:
            return not file.read(len(OLD_TORCH)).startswith(WRITTEN_BY_TORCH)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}; expected weights") from None


def read_pickled(
    path: Path, key: str | None = None, *, say: Callable[[str], None] = log.info
) -> Published:
    """The state dict of a network in a `.pkl`; nothing of the file is run.

    Args:
        path: what stylegan2-ada-pytorch or stylegan3 wrote.
        key: of the network in it; None for G_ema, the averaged one.
        say: called with a line for what was chosen that was not asked for.

    Returns:
        The tensors under the names that `state_dict()` gives them, and the attributes.

    Raises:
        ExportError: the file is broken, is none of theirs, or asks for more than they do.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if len(data) > LARGEST:
                raise _broken(f"{len(data):,} bytes")
            tree = Machine(KNOWN).run(data)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None
    except (OSError, ValueError) as error:  # it is empty, or ends too soon
        raise ExportError(f"{path}: no whole pickle ({error}); fetch it again") from None
    taken = "G_ema" if key is None else key
    if isinstance(tree, dict):
        others = [ascii(name)[:LONGEST] for name in tree if name != taken][:8]
        if taken not in tree:
            raise ExportError(
                f"{path}: no {taken!r} in it; found {', '.join(others)}; see --weights-key"
            )
        tree = tree[taken]
        if key is None:
            say(f"{path}: took G_ema, the averaged one; it also holds {', '.join(others) or '-'}")
    elif key is not None:
        raise ExportError(f"{path}: no {key!r} in it; it is one network, leave --weights-key out")
    if not isinstance(tree, Instance):
        kind = type(tree).__name__
        raise ExportError(f"{path}: {taken} is a {kind}; expected a network of NVIDIA's")
    try:
        return _flattened(tree, path.stat().st_size)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None


def _flattened(network: Instance, size: int) -> Published:
    """Its tensors and modules by name, in the order of `state_dict()`."""
    stored: dict[str, Stored] = {}
    modules: dict[str, Instance] = {}
    waiting: list[tuple[str, Any]] = [("", network)]
    seen: set[int] = set()
    while waiting:
        prefix, module = waiting.pop()
        if not isinstance(module, Instance) or prefix.count(".") > DEEPEST:
            raise _broken(f"a part {prefix[:LONGEST]!a} that is no module, or too deep")
        modules[prefix.removesuffix(".")] = module
        hidden = module.state.get("_non_persistent_buffers_set", set())
        if not isinstance(hidden, set):
            raise _broken("buffers that are no set")
        for name, value in _part(module, "_parameters", seen).items():
            if isinstance(value, Stored):
                stored[f"{prefix}{name}"] = value
        for name, value in _part(module, "_buffers", seen).items():
            if isinstance(value, Stored) and name not in hidden:
                stored[f"{prefix}{name}"] = value
        children = _part(module, "_modules", seen).items()
        waiting += [
            (f"{prefix}{name}.", child) for name, child in reversed(children) if child is not None
        ]
    if sum(prod(v.shape) * v.storage.dtype.itemsize for v in stored.values()) > size:
        raise _broken("its tensors are larger than the file")
    published = Published({name: value.tensor() for name, value in stored.items()})
    published.modules = modules
    return published


def _part(module: Instance, key: str, seen: set[int]) -> dict[str, Any]:
    """What a module has under names, if no other module, or itself further up, has the same."""
    part = module.state.get(key)
    if id(part) in seen:
        raise _broken(f"{key} of a module that lies within itself, or twice in the network")
    seen.add(id(part))
    if not isinstance(part, dict) or not all(
        isinstance(name, str) and len(name) <= LONGEST for name in part
    ):
        raise _broken(f"{module.class_name[:LONGEST]!a} has no {key} by name")
    return part


class Machine:
    """Carries out the operations of pickles; see the module.

    Args:
        known: globals that may be named.
        left: operations that remain, shared with those of the storages.
    """

    def __init__(self, known: Mapping[tuple[str, str], Any], left: list[int] | None = None) -> None:
        self._known, self._left = known, [NUM_OPERATIONS] if left is None else left
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, source: bytes | IO[bytes] | mmap.mmap) -> Any:
        """What one pickle builds.

        Raises:
            ExportError: it does what it must not. ValueError: it ends too soon.
        """
        self._stack, self._memo = [], {}
        for operation, argument, _ in pickletools.genops(source):  # type: ignore[arg-type]
            _spend(self._left, 1)
            name = operation.name
            if name in PUSHED:
                self._stack.append(argument)
            elif name in CONSTANTS:
                self._stack.append(CONSTANTS[name])
            elif name in EMPTY:
                self._stack.append(EMPTY[name]())
            elif name in ACTIONS:
                ACTIONS[name](self, argument)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise _broken(f"the operation {name}, which none of these networks needs")
        return self._pop()

    def _pop(self, kind: type | tuple[type, ...] = object) -> Any:
        if not self._stack or self._stack[-1] is MARK or not isinstance(self._stack[-1], kind):
            raise _broken("an operation that finds no such value before it")
        return self._stack.pop()

    def _peek(self, kind: type | tuple[type, ...] = object) -> Any:
        value = self._pop(kind)
        self._stack.append(value)
        return value

    def _since_mark(self) -> list[Any]:
        items = []
        while self._stack and self._stack[-1] is not MARK:
            items.append(self._stack.pop())
        if not self._stack:
            raise _broken("an operation that finds no mark before it")
        self._stack.pop()
        return items[::-1]

    def mark(self, _: object) -> None:
        self._stack.append(MARK)

    def discard(self, _: object) -> None:
        self._pop()

    def put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._peek()

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise _broken("a reference to what is not there")
        self._stack.append(self._memo[index])

    def tuple_(self, _: object) -> None:
        self._stack.append(tuple(self._since_mark()))

    def append(self, _: object) -> None:
        value = self._pop()
        self._peek(list).append(value)

    def appends(self, _: object) -> None:
        items = self._since_mark()
        self._peek(list).extend(items)

    def add_items(self, _: object) -> None:
        items = self._since_mark()
        self._peek(set).update(_key(item) for item in items)

    def set_item(self, _: object) -> None:
        value, key = self._pop(), self._pop()
        self._peek(dict)[_key(key)] = value

    def set_items(self, _: object) -> None:
        items = self._since_mark()
        if len(items) % 2:
            raise _broken("a key without a value")
        self._peek(dict).update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def global_(self, names: str) -> None:
        """Of protocols 1 to 3: "module name"."""
        self._name(*names.split(" ", 1))

    def stack_global(self, _: object) -> None:
        name, module = self._pop(str), self._pop(str)
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        found = Global(module, name)
        if module.startswith("dnnlib.tflib"):
            raise ExportError(
                "a network of the original StyleGAN or StyleGAN2, for TensorFlow; convert it by"
                " legacy.py of stylegan2-ada-pytorch, and export what that writes"
            )
        if (module, name) not in self._known:
            raise ExportError(
                f"names {found}, which no StyleGAN needs; nothing in the file was run; {REMEDY}"
            )
        self._stack.append(found)

    def instance(self, names: str) -> None:
        """INST calls a class of protocol 0; none of these files does."""
        self.global_(names)
        raise _broken("the operation INST, which none of these networks needs")

    def reduce(self, _: object) -> None:
        """Call a global: do what this machine has for it."""
        arguments, called = self._pop(tuple), self._pop(Global)
        function = self._known[called.module, called.name]
        if not callable(function):
            raise _broken(f"a call of {called}")
        try:
            self._stack.append(function(self._left, *arguments))
        except (TypeError, struct.error):
            raise _broken(f"{called} of {len(arguments)} values that it cannot take") from None

    def new_object(self, _: object) -> None:
        arguments, called = self._pop(tuple), self._pop(Global)
        if (called.module, called.name) != ("dnnlib.util", "EasyDict") or arguments:
            raise _broken(f"an object of {called} with {len(arguments)} values")
        self._stack.append({})

    def build(self, _: object) -> None:
        """Give a dtype its byte order, an array its numbers; nothing else has a state here."""
        state = self._pop((tuple, dict))
        if isinstance(state, dict) and not state:  # of an EasyDict, which has no other attributes
            self._peek(dict)
            return
        built = self._peek(Array)
        if not isinstance(state, tuple):
            raise _broken("numpy's state that is no tuple")
        if built.shape is None:
            if len(state) < 2 or state[1] not in ("<", "|"):
                raise _broken("numbers that are not little-endian")
            return
        if len(state) != 5 or not isinstance(state[2], Array) or not _is_shape(state[1]):
            raise _broken("an array without shape, dtype and numbers")
        built.code, built.shape = state[2].code, state[1]
        built.values = _numbers(self._left, built.code, state[4])
        if state[3] is not False or len(built.values) != prod(built.shape):
            raise _broken(f"an array of {len(built.values)} numbers and another shape")

    def persistent(self, _: object) -> None:
        """What torch.save keeps outside of its pickle: a storage."""
        if self._known is not STORAGES:
            raise _broken("a persistent id, which none of these networks needs")
        self._stack.append(self._pop(tuple))


MARK = object()
PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set}


def _tuple_of(count: int) -> Callable[[Machine, Any], None]:
    def act(machine: Machine, _: object) -> None:
        items = [machine._pop() for _ in range(count)]
        machine._stack.append(tuple(items[::-1]))

    return act


ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine.mark,
    "POP": Machine.discard,
    "MEMOIZE": Machine.put,
    "BINPUT": Machine.put,
    "LONG_BINPUT": Machine.put,
    "BINGET": Machine.get,
    "LONG_BINGET": Machine.get,
    "TUPLE": Machine.tuple_,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": Machine.append,
    "APPENDS": Machine.appends,
    "ADDITEMS": Machine.add_items,
    "SETITEM": Machine.set_item,
    "SETITEMS": Machine.set_items,
    "GLOBAL": Machine.global_,
    "STACK_GLOBAL": Machine.stack_global,
    "INST": Machine.instance,
    "REDUCE": Machine.reduce,
    "NEWOBJ": Machine.new_object,
    "BUILD": Machine.build,
    "BINPERSID": Machine.persistent,
}


def _spend(left: list[int], count: int) -> None:
    left[0] -= count
    if left[0] < 0:
        raise _broken(f"more than {NUM_OPERATIONS:,} operations")


def _key(value: Any) -> str | int:
    """A key that hashes without going down into anything, and not as many others do."""
    if not isinstance(value, str) and not (isinstance(value, int) and abs(value) < 2**31):
        raise _broken(f"a key that is a {type(value).__name__}, or a huge number")
    return value


def _is_shape(value: object) -> bool:
    """Or strides: no axis is huge, and an empty one does not make room for huge others."""
    if not isinstance(value, tuple) or len(value) > MOST_AXES:
        return False
    if not all(type(n) is int and 0 <= n < 2**40 for n in value):
        return False
    return 0 not in value or max(value) < 2**12


def _broken(found: str) -> ExportError:
    return ExportError(
        f"not a network as NVIDIA's code pickles it: {found}; nothing in it was run; {REMEDY}"
    )


# What the machine has for each global that may be called. The first argument is how many operations
# are left; the others are the file's.


def _instance(_: object, meta: Any) -> Instance:
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise _broken("an object that is no class's")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise _broken("an object without class_name or state")
    return Instance(name, state)


def _storage(left: list[int], data: Any) -> Storage:
    """The bytes that torch.save gives for one storage, in its format from before zip files.

    Raises:
        ExportError: they hold something else, or fewer numbers than they declare.
    """
    if not isinstance(data, bytes) or not data.startswith(OLD_TORCH):
        raise _broken("tensors in another format than the one that pickle makes torch.save take")
    file, machine = io.BytesIO(data), Machine(STORAGES, left)
    _, _, system, found, keys = (machine.run(file) for _ in range(5))
    start = file.tell() + 8
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _broken("tensors that are not little-endian")
    if not isinstance(found, tuple) or len(found) != 6 or found[0] != "storage":
        raise _broken("no storage where there should be one")
    if not isinstance(found[1], Global) or not isinstance(keys, list) or len(keys) != 1:
        raise _broken("several storages where there should be one")
    dtype, count = STORAGES[found[1].module, found[1].name], found[4]
    if type(count) is not int or data[start - 8 : start] != struct.pack("<q", count):
        raise _broken("a storage that declares two sizes")
    if not 0 <= count * dtype.itemsize <= len(data) - start:
        raise _broken(f"a storage of {count:,} numbers in {len(data):,} bytes")
    return Storage(data, start, count, dtype)


def _tensor(
    _: object, storage: Any, offset: Any, shape: Any, strides: Any, *_grad_and_hooks: Any
) -> Stored:
    if not isinstance(storage, Storage) or not _is_shape(shape) or not _is_shape(strides):
        raise _broken("a tensor without storage, shape or strides")
    if type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise _broken("a tensor of another rank than its strides")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if prod(shape) > storage.count or (prod(shape) and last >= storage.count):
        raise _broken(f"a tensor {str(shape)[:60]} in a storage of {storage.count:,} numbers")
    return Stored(storage, offset, shape, strides)


def _parameter(_: object, data: Any, *_grad_and_hooks: Any) -> Stored:
    if not isinstance(data, Stored):
        raise _broken("a parameter that is no tensor")
    return data


def _dtype(_: object, code: Any, *_align_and_copy: Any) -> Array:
    if not isinstance(code, str) or code not in NUMBERS:
        raise _broken("a dtype that is no number's")
    return Array(code)


def _scalar(left: list[int], dtype: Any, data: Any) -> float:
    if not isinstance(dtype, Array) or dtype.shape is not None:
        raise _broken("a number of no dtype")
    values = _numbers(left, dtype.code, data)
    if len(values) != 1:
        raise _broken("a number of another length than its dtype")
    return values[0]


def _array(_: object, kind: Any, *_shape_and_dtype: Any) -> Array:
    if kind != Global("numpy", "ndarray"):
        raise _broken("an array that is not numpy's")
    return Array("u1", ())


def _numbers(left: list[int], code: str, data: Any) -> tuple[float, ...]:
    size = struct.calcsize(f"<{NUMBERS[code]}") if code in NUMBERS else 0
    if not size or not isinstance(data, bytes) or len(data) % size:
        raise _broken("numbers in bytes of another length")
    _spend(left, len(data) // size)
    return struct.unpack(f"<{len(data) // size}{NUMBERS[code]}", data)


def _ordered(_: object) -> dict[Any, Any]:
    return {}


def _set(left: list[int], items: Any = ()) -> set[str | int]:
    if not isinstance(items, list):
        raise _broken("a set that is not made of a list")
    _spend(left, len(items))
    return {_key(item) for item in items}


KNOWN: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _instance,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): _set,
    ("dnnlib.util", "EasyDict"): None,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): None,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
}
