"""State dicts in a checkpoint, found wherever they lie."""

import re
from dataclasses import dataclass
from typing import TypeGuard

from torch import Tensor

from ganexport.subjects.arrays import Array

DEEPEST = 16  # levels of containers that are looked into
LONGEST = 120  # characters of a name that are shown
AVERAGED = {"ema", "averaged", "average", "avg", "swa", "shadow", "running"}  # words of a key


@dataclass(frozen=True)
class State:
    """Tensors in one dict of a file.

    Attributes:
        key: dotted path to it, "" for the file's own.
        tensors: by name; whatever else lies beside them is left out.
    """

    key: str
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        """Its key, as it is shown and may be given."""
        return shown(self.key) or "."

    def __str__(self) -> str:
        count = sum(value.numel() for value in self.tensors.values())
        return f"{self.name}: {len(self.tensors)} tensors, {count:,} parameters"


def find_states(node: object, key: str = "") -> list[State]:
    """All dicts of tensors, or of arrays, in a tree of dicts, lists and tuples.

    But those of optimizers.
    """
    found: list[State] = []
    seen: set[int] = set()  # a pickle may hold itself

    def walk(node: object, key: str, depth: int) -> None:
        children = _children(node)
        if id(node) in seen or depth > DEEPEST or {"state", "param_groups"} <= children.keys():
            return
        seen.add(id(node))
        tensors = {n: Tensor.detach(v) for n, v in children.items() if isinstance(v, Tensor)}
        if not tensors:  # arrays beside tensors are something else, as a mean of the data
            arrays = {n: v.tensor for n, v in children.items() if isinstance(v, Array)}
            tensors = {n: v for n, v in arrays.items() if v is not None}
        if tensors and (isinstance(node, dict) or _is_paired(node)):
            found.append(State(key, tensors))
        for name, child in children.items():
            walk(child, f"{key}.{name}" if key else name, depth + 1)

    walk(node, key, 0)
    return found


def find_unnamed(node: object) -> str | None:
    """The path of a list of tensors in a tree, as list(parameters()) gives; None if there is none.

    What lies in an optimizer is none.
    """
    seen: set[int] = set()

    def look(node: object, key: str, depth: int) -> str | None:
        children = _children(node)
        if id(node) in seen or depth > DEEPEST or {"state", "param_groups"} <= children.keys():
            return None
        seen.add(id(node))
        if isinstance(node, list | tuple) and any(isinstance(c, Tensor) for c in children.values()):
            return key
        places = ((f"{key}.{name}" if key else name, child) for name, child in children.items())
        found = (look(child, place, depth + 1) for place, child in places)
        return next((place for place in found if place is not None), None)

    return look(node, "", 0)


def look_up(node: object, key: str) -> object | None:
    """What lies under a dotted path; also of names that begin with it, without that beginning."""
    if key in ("", "."):
        return node
    children = _children(node)
    parts = key.split(".")
    for n in range(len(parts), 0, -1):  # "ema_0.999" is one key
        name, rest = ".".join(parts[:n]), ".".join(parts[n:])
        if name in children and (found := look_up(children[name], rest)) is not None:
            return found
    return {
        n.removeprefix(f"{key}."): v for n, v in children.items() if n.startswith(f"{key}.")
    } or None


def is_averaged(key: str) -> bool:
    """Does a key mean weights averaged over training, as "g_ema" does?"""
    words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", key)}
    return bool(words & AVERAGED) or "GE" in key.split(".")  # G and GE, as one project has it


def shown(text: str) -> str:
    """A stranger's name for a message: short, and nothing that a terminal would obey."""
    return text if text.isprintable() and len(text) <= LONGEST else ascii(text[:LONGEST])


def _children(node: object) -> dict[str, object]:
    """By name or number; of a list of names and tensors, as of a dict.

    A file may give its OrderedDicts and tensors attributes: methods are the type's, not theirs.
    """
    if _is_paired(node):
        node = dict(node)
    if isinstance(node, dict):
        return {str(name): child for name, child in dict.items(node) if isinstance(name, str | int)}
    return {str(n): c for n, c in enumerate(node)} if isinstance(node, list | tuple) else {}


def _is_paired(node: object) -> TypeGuard[list[tuple[str, Tensor]]]:
    """Is it a list of names and tensors, as list(state_dict.items()) gives?"""
    return (
        isinstance(node, list)
        and bool(node)
        and all(
            isinstance(item, tuple)
            and len(item) == 2
            and isinstance(item[0], str)
            and isinstance(item[1], Tensor)
            for item in node
        )
    )
