"""Weights from files that other programs wrote; nothing but tensors is read."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ganexport.subjects.checkpoints import open_checkpoint
from ganexport.subjects.fitting import are_alike, find_fits, near_fits, nearest, shared_wrapper
from ganexport.subjects.states import State, find_states, find_unnamed, is_averaged, look_up, shown
from ganinfer.errors import CheckpointError, ExportError
from gantrain.pickle_networks import is_plain, read_pickled

log = logging.getLogger(__name__)

Say = Callable[[str], None]
LISTED = 20  # state dicts that a message names


def load_weights(
    module: nn.Module, path: Path, key: str | None = None, *, say: Say = log.info
) -> nn.Module:
    """Load a file's weights into a module: all names and shapes, or none.

    The state dict that fits is found by itself, whatever it lies under and whatever prefix its
    names have; of several an averaged one (EMA) is taken. Nothing of the file is run.

    Args:
        module: the network. It keeps its dtypes: halves and doubles become what it has.
        path: see `open_checkpoint`.
        key: dotted path of a state dict within the file, such as "g_ema" or
            "state_dict.generator", or of what holds it; "." for the file's own.
        say: called with a line for what was chosen that was not asked for.

    Returns:
        The module.

    Raises:
        ExportError: the file is broken or something else; nothing in it fits, or more than one.
    """
    states = _open(path, key)
    own = {n: v for n, v in module.state_dict().items() if isinstance(v, Tensor)}
    name = type(module).__name__
    if lazy := [n for n, v in own.items() if is_lazy(v)]:
        raise ExportError(f"{name}: {lazy[0]} has no shape yet; call it once before it is given")
    if not own:
        raise ExportError(f"{name}: has no weights; leave --weights out")
    fits = [fit for state in states for fit in find_fits(state, own)]
    if not fits:
        raise ExportError(f"{path}: not the weights of {name}: {_why_not(states, own)}")
    chosen = _choose(path, [fit.state for fit in fits], key, say, fitting=f" that fit {name}")
    fit = next(fit for fit in fits if fit.state is chosen)
    if not is_averaged(chosen.key):
        for near, why in (found for state in states for found in near_fits(state, own)):
            if is_averaged(near.key):  # as of parameters only, without batch norm's statistics
                say(f"{path}: {near.name}, averaged, does not fit: {why}")
    if fit.added:
        say(f"{path}: its names are taken for those of {name} that begin with {fit.added}")
    try:
        module.load_state_dict(fit.values, strict=False)  # it is strict above
    except Exception as error:  # a method or a hook of the module's own
        raise ExportError(f"{path}: {name} does not load it: {error}") from None
    return module


def read_state(path: Path, key: str | None = None, *, say: Say = log.info) -> dict[str, Tensor]:
    """The state dict in a file, for those who know its names themselves.

    It is the one under the key; without a key the only one, or of several the averaged one.

    Args:
        path, key, say: as in `load_weights`.

    Returns:
        Tensors by name, floats as float32; what else lies beside them is left out, and what
        wrappers such as DataParallel put before all names.

    Raises:
        ExportError: the file is broken or something else; or there are several state dicts.
    """
    if path.suffix == ".pkl" and is_plain(path):
        try:
            return read_pickled(path, key, say=say)
        except CheckpointError as error:
            raise ExportError(str(error)) from None
    states = _open(path, key)
    named = [state for state in states if any("." in name for name in state.tensors)]
    chosen = _choose(path, named or states, key, say, fitting="")
    tensors = chosen.tensors
    while (wrapper := shared_wrapper(tensors)) is not None:
        tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return {name: _float32(value) for name, value in tensors.items()}


def _open(path: Path, key: str | None) -> list[State]:
    """The state dicts in a file, or in what lies under a key of it."""
    tree = open_checkpoint(path)
    found = tree if key is None else look_up(tree, key)
    if found is None:
        raise ExportError(f"{path}: no {key!r} in it; {_contents(tree)}")
    states = find_states(found, "" if key in (None, ".") else key)
    if not states:
        under = "" if key is None else f" under {key!r}"
        raise ExportError(f"{path}: no state dict{under}; {_contents(tree)}")
    return states


def _choose(
    path: Path, found: Sequence[State], key: str | None, say: Say, *, fitting: str
) -> State:
    """The one that was asked for, the averaged one, or the only one."""
    asked = "" if key in (None, ".") else key
    exact = [state for state in found if state.key == asked and key is not None]
    pool = exact or found
    averaged = [s for s in pool if is_averaged(s.key.removeprefix(asked))]
    several = f" of {len(pool)}{fitting}"
    for some, why in (
        (averaged, f"; the averaged one{several}"),
        (pool, f"; all{several} are alike"),
    ):
        if some and are_alike([state.tensors for state in some]):
            if some[0].key != asked:
                say(f"{path}: took {some[0]}{why if len(pool) > 1 else ''}")
            return some[0]
    raise ExportError(
        f"{path}: {len(pool)} state dicts{fitting}; say which with --weights-key:{_listed(pool)}"
    )


def _why_not(states: Sequence[State], own: dict[str, Tensor]) -> str:
    near = {state.key: nearest(state, own) for state in states}
    if len(states) == 1:
        return f"{f'{states[0].name}: ' if states[0].key else ''}{near[states[0].key]}"
    best = min(near, key=lambda k: len(near[k].missing) + len(near[k].unknown) + len(near[k].other))
    return (
        f"none of {len(states)} state dicts fits; nearest is {shown(best) or '.'}: {near[best]}."
        f" They are, by --weights-key:{_listed(states)}"
    )


def _listed(states: Sequence[State]) -> str:
    lines = [f"\n    {state}" for state in states[:LISTED]]
    return "".join(lines) + (
        f"\n    and {len(states) - LISTED} more" if len(states) > LISTED else ""
    )


def _contents(tree: object) -> str:
    """What there is in a file: its state dicts, or else its keys, or else its type."""
    if states := find_states(tree):
        return f"found, by --weights-key:{_listed(states)}"
    found = f"found {type(tree).__name__}"
    if isinstance(tree, dict):
        found = f"found {[shown(name) for name in tree if isinstance(name, str)][:8]}"
    unnamed = find_unnamed(tree)
    if unnamed is None:
        return found
    return (
        f"{found}, and tensors without names{f' in {shown(unnamed)}' if unnamed else ''}, as"
        " list(parameters()) gives: they do not say what they are. Load them where they come from,"
        " and save state_dict() of the network"
    )


def _float32(value: Tensor) -> Tensor:
    """Float32, but for what is no float, or larger than what the file holds of it."""
    whole = value.layout == torch.strided and not value.is_quantized and not value.is_meta
    if not value.is_floating_point() or not whole:
        return value
    held = value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    return value.float() if held else value
