"""The operations of pickles, carried out one by one, without `pickle` and without running anything.

All that they build here is numbers, text, lists, dicts, and what this program has for a global. A
global is a pair of names, never looked up; one that is not among those that may be named is refused
by these names.

What a file may cost is bounded: NUM_OPERATIONS in all, where each number of an array counts as one;
keys are text or small numbers, which hash fast. Nothing here recurses into what a file nests.
"""

import mmap
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

from ganinfer.errors import GanError

NUM_OPERATIONS = 500_000  # G, D and G_ema of 1024x1024 take about 30,000, CIFAR-100 300,000


class PickleRefused(GanError):
    """A pickle does what none of its kind does; the text is what was found.

    Attributes:
        named: the global that it names, if that was all.
    """

    def __init__(self, found: str, named: "Global | None" = None) -> None:
        super().__init__(found)
        self.named = named


@dataclass(frozen=True)
class Global:
    """A name, and nothing behind it."""

    module: str
    name: str

    def __str__(self) -> str:
        return ascii(f"{self.module}.{self.name}"[:120])[1:-1]


class Stateful:
    """What a global builds first, and BUILD fills."""

    def take_state(self, left: list[int], state: Any) -> None:
        """Fill it. `left` is how many operations are."""
        raise NotImplementedError


class Machine:
    """Carries out the operations of pickles; see the module.

    Args:
        known: globals that may be named -> what is done when they are called, with the number of
            operations that are left and the file's values; None if they are not.
        left: operations that are, shared with those of pickles within the pickle.
        persistent: may there be references to what lies outside? They are given as they are.
    """

    def __init__(
        self,
        known: Mapping[tuple[str, str], Callable[..., Any] | None],
        left: list[int] | None = None,
        *,
        persistent: bool = False,
    ) -> None:
        self._known, self._persistent = known, persistent
        self._left = [NUM_OPERATIONS] if left is None else left
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, source: bytes | IO[bytes] | mmap.mmap) -> Any:
        """What one pickle builds.

        Raises:
            PickleRefused: it does what it must not. ValueError: it ends too soon.
        """
        self._stack, self._memo = [], {}
        for operation, argument, _ in pickletools.genops(source):  # type: ignore[arg-type]
            spend(self._left, 1)
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
                raise broken(f"the operation {name}, which none of its kind needs")
        return self._pop()

    def _pop(self, kind: type | tuple[type, ...] = object) -> Any:
        if not self._stack or self._stack[-1] is MARK or not isinstance(self._stack[-1], kind):
            raise broken("an operation that finds no such value before it")
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
            raise broken("an operation that finds no mark before it")
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
            raise broken("a reference to what is not there")
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
        self._peek(set).update(key_of(item) for item in items)

    def set_item(self, _: object) -> None:
        value, key = self._pop(), self._pop()
        self._peek(dict)[key_of(key)] = value

    def set_items(self, _: object) -> None:
        items = self._since_mark()
        if len(items) % 2:
            raise broken("a key without a value")
        self._peek(dict).update(zip(map(key_of, items[::2]), items[1::2], strict=True))

    def global_(self, names: str) -> None:
        """Of protocols 1 to 3: "module name"."""
        self._name(*names.split(" ", 1))

    def stack_global(self, _: object) -> None:
        name, module = self._pop(str), self._pop(str)
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        found = Global(module, name)
        if (module, name) not in self._known:
            raise PickleRefused(f"the name {found}, which none of its kind needs", found)
        self._stack.append(found)

    def instance(self, names: str) -> None:
        """INST calls a class of protocol 0; none of these files does."""
        self.global_(names)
        raise broken("the operation INST, which none of its kind needs")

    def reduce(self, _: object) -> None:
        """Call a global, or make an object of it: do what there is for it."""
        arguments, called = self._pop(tuple), self._pop(Global)
        function = self._known[called.module, called.name]
        if function is None:
            raise broken(f"a call of {called}")
        try:
            self._stack.append(function(self._left, *arguments))
        except (TypeError, struct.error):
            raise broken(f"{called} of {len(arguments)} values that it cannot take") from None

    def build(self, _: object) -> None:
        """Fill what a global has built; nothing else has a state here."""
        state, built = self._pop((tuple, dict)), self._peek((dict, Stateful))
        if isinstance(built, Stateful):
            built.take_state(self._left, state)
        elif state:  # of an EasyDict, which has no attributes of its own
            raise broken("a dict with attributes")

    def persistent(self, _: object) -> None:
        if not self._persistent:
            raise broken("a persistent id, which none of its kind needs")
        self._stack.append(self._pop(tuple))


MARK = object()
PUSHED = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("SHORT_BINSTRING", "BINSTRING"),  # of Python 2: bytes, which come as latin-1
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
    "NEWOBJ": Machine.reduce,
    "BUILD": Machine.build,
    "BINPERSID": Machine.persistent,
}


def spend(left: list[int], count: int) -> None:
    """Count operations.

    Raises:
        PickleRefused: none are left.
    """
    left[0] -= count
    if left[0] < 0:
        raise broken(f"more than {NUM_OPERATIONS:,} operations")


def key_of(value: Any) -> str | bytes | int:
    """A key that hashes without going down into anything, and not as many others do."""
    if not isinstance(value, str | bytes) and not (isinstance(value, int) and abs(value) < 2**31):
        raise broken(f"a key that is a {type(value).__name__}, or a huge number")
    return value


def broken(found: str) -> PickleRefused:
    """What to raise for what no pickle of its kind does."""
    return PickleRefused(found)
