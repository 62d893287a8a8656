"""A state dict's names and a network's: the same network, or not."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ganexport.subjects.states import State

# Put around networks by DataParallel, torch.compile, FSDP and activation checkpointing.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
COUNTER = "num_batches_tracked"  # of batch norm: nothing in eval mode depends on it


@dataclass(frozen=True)
class Fit:
    """A state dict whose names and shapes are those of a network.

    Attributes:
        state: that it was found as; its key has the prefix that its names had.
        values: by the network's own names.
        added: prefix of the network's names that the file's lack.
    """

    state: State
    values: dict[str, Tensor]
    added: str = ""


@dataclass(frozen=True)
class Mismatch:
    """What keeps a state dict from fitting a network."""

    missing: list[str]
    unknown: list[str]
    other: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.other)

    def __str__(self) -> str:
        return (
            f"{len(self.missing)} missing {self.missing[:3]}, {len(self.unknown)} unknown"
            f" {self.unknown[:3]}, {len(self.other)} of other shapes {self.other[:3]}"
        )


def find_fits(state: State, own: Mapping[str, Tensor]) -> list[Fit]:
    """The parts of a state dict that fit a network: all names, all shapes, none too many.

    Args:
        state: as found; a part of it is what begins with one prefix.
        own: the network's state dict. A batch norm's counter may be missing, and a name of two
            that share one tensor.

    Returns:
        As few changes to the names as will do: a prefix of the file's left out; then one of the
        network's own too; then, anywhere in a name, what wrappers put in.
    """
    renamed: Callable[[str], str]
    for renamed in (str, _unwrapped):
        theirs = {renamed(name): value for name, value in state.tensors.items()}
        ours = {renamed(name): name for name in own}
        if len(theirs) < len(state.tensors) or len(ours) < len(own):
            continue  # two names became one
        for added in _shared_prefixes(ours):
            wanted = {name.removeprefix(added): own_name for name, own_name in ours.items()}
            fits = []
            for prefix in _prefixes(theirs, wanted):
                if added and prefix.split(".")[-2:-1] == added.split(".")[-2:-1]:
                    continue  # the same name in both, which the step before has refused
                inside = _below(theirs, prefix)
                if not _compare(inside, wanted, own):
                    values = {
                        wanted[n]: v
                        for n, v in inside.items()
                        if n in wanted and not _is_counter(n)
                    }
                    fits.append(Fit(_part(state, prefix, inside), values, added))
            if fits:
                return fits
    return []


def nearest(state: State, own: Mapping[str, Tensor]) -> Mismatch:
    """Why a state dict does not fit, at the prefix where most names do."""
    names = {name: name for name in own}
    prefix = next(iter(_prefixes(state.tensors, names)), "")
    return _compare(_below(state.tensors, prefix), names, own)


def near_fits(state: State, own: Mapping[str, Tensor]) -> Iterator[tuple[State, Mismatch]]:
    """The parts of a state dict that have most of a network's names, but do not fit; and why."""
    names = {name: name for name in own}
    for prefix in _prefixes(state.tensors, names):
        inside = _below(state.tensors, prefix)
        mismatch = _compare(inside, names, own)
        if mismatch and 2 * len(mismatch.missing) < len(own):
            yield _part(state, prefix, inside), mismatch


def are_alike(states: Sequence[Mapping[str, Tensor]]) -> bool:
    """Do they hold the same numbers under the same names?"""
    first = states[0]
    return all(
        state.keys() == first.keys() and all(_equal(v, first[n]) for n, v in state.items())
        for state in states[1:]
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def _part(state: State, prefix: str, tensors: dict[str, Tensor]) -> State:
    return State(".".join(filter(None, (state.key, prefix.removesuffix(".")))), tensors)


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def shared_wrapper(names: Collection[str]) -> str | None:
    """What a wrapper put before all names, such as "module."; None if there is no such thing."""
    prefixes = {name[: name.find(".") + 1] for name in names}
    shared = prefixes.pop() if len(prefixes) == 1 else ""
    return shared if shared.removesuffix(".") in WRAPPERS else None


def _shared_prefixes(names: Mapping[str, str]) -> Iterator[str]:
    """First none, then "a.", then "a.b.", as far as all names begin so."""
    yield ""
    first = min(names)
    for match in re.finditer(r"\.", first):
        if not all(name.startswith(first[: match.end()]) for name in names):
            return
        yield first[: match.end()]


def _prefixes(theirs: Mapping[str, Tensor], wanted: Mapping[str, str]) -> list[str]:
    """What stands before wanted names in a file, the most frequent first."""
    counted: Counter[str] = Counter()
    for name in theirs:
        for start in (0, *(match.end() for match in re.finditer(r"\.", name))):
            if name[start:] in wanted:
                counted[name[:start]] += 1
    return [prefix for prefix, _ in counted.most_common()]


def _compare(
    theirs: Mapping[str, Tensor], wanted: Mapping[str, str], own: Mapping[str, Tensor]
) -> Mismatch:
    """The names of a file against those wanted, which stand for the network's own."""
    there = {wanted[name] for name in theirs if name in wanted}
    shared = {own[name].data_ptr() for name in there} - {0}
    return Mismatch(
        missing=sorted(
            n
            for n, o in wanted.items()
            if o not in there and not _is_counter(n) and own[o].data_ptr() not in shared
        ),
        unknown=sorted(n for n in theirs if n not in wanted and not _is_counter(n)),
        other=sorted(
            f"{n} {_described(v)}, expected {_described(own[wanted[n]])}"
            for n, v in theirs.items()
            if n in wanted and not _is_counter(n) and not _fits(v, own[wanted[n]])
        ),
    )


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTER


def _fits(value: Tensor, own: Tensor) -> bool:
    """Same shape and kind of numbers; a half may become a float, a float no integer."""
    plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    return (
        plain
        and value.shape == own.shape
        and value.is_floating_point() == own.is_floating_point()
        and value.is_complex() == own.is_complex()
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    same = _fits(one, other) and _fits(other, one) and one.dtype == other.dtype
    return same and torch.equal(one, other)


def _described(value: Tensor) -> str:
    return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
