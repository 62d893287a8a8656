"""Networks that stylegan2-ada-pytorch and stylegan3 pickled, read without running anything.

Such a `.pkl` holds the source of its classes beside their attributes, and `pickle.load` runs it. It
is read by `pickle_machine` instead, which knows the globals of `pickle_values` and no other.
"""

import logging
import mmap
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from torch import Tensor

from ganinfer.errors import CheckpointError
from gantrain.pickle_machine import Machine, PickleRefused, broken
from gantrain.pickle_values import KNOWN, OLD_TORCH, Instance, Stored

log = logging.getLogger(__name__)

LARGEST = 4 * 2**30  # bytes; the largest that are published have 400 million
REMEDY = "if you trust who made it, save torch.save(G_ema.state_dict(), 'g.pt') where it was made"
DEEPEST = 32  # of modules within modules
LONGEST = 64  # of a module's or a tensor's own name
WRITTEN_BY_TORCH = (b"PK\x03\x04", OLD_TORCH)


class Published(dict[str, Tensor]):
    """A state dict with what else its file says.

    Attributes:
        modules: name of each ("" for the network) -> its class and attributes.
    """

    modules: dict[str, Instance]

    def every(self, attribute: str) -> list[Any]:
        """What those modules say that have this attribute."""
        states = [module.state for module in self.modules.values()]
        return [state[attribute] for state in states if attribute in state]


def is_plain(path: Path) -> bool:
    """Was a file written by `pickle.dump`, and not by `torch.save`?"""
    try:
        with path.open("rb") as file:
            return not file.read(len(OLD_TORCH)).startswith(WRITTEN_BY_TORCH)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; expected weights") from None


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
        CheckpointError: the file is broken, is none of theirs, or asks for more than they do.
    """
    tree = _opened(path)
    taken = "G_ema" if key is None else key
    if isinstance(tree, dict):
        others = [ascii(name)[:LONGEST] for name in tree if name != taken][:8]
        if taken not in tree:
            raise CheckpointError(
                f"{path}: no {taken!r} in it; found {', '.join(others)}; see --weights-key"
            )
        tree = tree[taken]
        if key is None:
            say(f"{path}: took G_ema, the averaged one; it also holds {', '.join(others) or '-'}")
    elif key is not None:
        raise CheckpointError(
            f"{path}: no {key!r} in it; it is one network, leave --weights-key out"
        )
    return _network(path, tree, taken)


def read_snapshot(path: Path) -> dict[str, Published]:
    """The networks of a training in a `.pkl`, as `read_pickled` reads one: G, D and G_ema.

    Raises:
        CheckpointError: likewise; or there is none of the three.
    """
    tree = _opened(path)
    keys = [key for key in ("G", "D", "G_ema") if isinstance(tree, dict) and tree.get(key)]
    if not keys:
        raise CheckpointError(f"{path}: none of G, D, G_ema in it; expected a snapshot of NVIDIA's")
    return {key: _network(path, tree[key], key) for key in keys}


def _opened(path: Path) -> Any:
    """What a pickle holds."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if len(data) > LARGEST:
                raise broken(f"{len(data):,} bytes")
            return Machine(KNOWN).run(data)
    except PickleRefused as error:
        raise _in_words(path, error) from None
    except (OSError, ValueError) as error:  # it is empty, or ends too soon
        raise CheckpointError(f"{path}: no whole pickle ({error}); fetch it again") from None


def _network(path: Path, tree: Any, key: str) -> Published:
    """The one that lies under a key."""
    if not isinstance(tree, Instance):
        kind = type(tree).__name__
        raise CheckpointError(f"{path}: {key} is a {kind}; expected a network of NVIDIA's")
    try:
        return _flattened(tree, path.stat().st_size)
    except PickleRefused as error:
        raise _in_words(path, error) from None


def _in_words(path: Path, error: PickleRefused) -> CheckpointError:
    if error.named is None:
        return CheckpointError(
            f"{path}: not a network as NVIDIA's code pickles it: {error}; nothing in it was run;"
            f" {REMEDY}"
        )
    if error.named.module.startswith("dnnlib.tflib"):
        return CheckpointError(
            f"{path}: a network of the original StyleGAN or StyleGAN2, for TensorFlow; convert it"
            " by legacy.py of stylegan2-ada-pytorch, and export what that writes"
        )
    return CheckpointError(
        f"{path}: names {error.named}, which no StyleGAN needs; nothing in the file was run;"
        f" {REMEDY}"
    )


def _flattened(network: Instance, size: int) -> Published:
    """Its tensors and modules by name, in the order of `state_dict()`."""
    stored: dict[str, Stored] = {}
    modules: dict[str, Instance] = {}
    waiting: list[tuple[str, Any]] = [("", network)]
    seen: set[int] = set()
    while waiting:
        prefix, module = waiting.pop()
        if not isinstance(module, Instance) or prefix.count(".") > DEEPEST:
            raise broken(f"a part {prefix[:LONGEST]!a} that is no module, or too deep")
        modules[prefix.removesuffix(".")] = module
        hidden = module.state.get("_non_persistent_buffers_set", set())
        if not isinstance(hidden, set):
            raise broken("buffers that are no set")
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
        raise broken("its tensors are larger than the file")
    published = Published({name: value.tensor() for name, value in stored.items()})
    published.modules = modules
    return published


def _part(module: Instance, key: str, seen: set[int]) -> dict[str, Any]:
    """What a module has under names, if no other module, or itself further up, has the same."""
    part = module.state.get(key)
    if id(part) in seen:
        raise broken(f"{key} of a module that lies within itself, or twice in the network")
    seen.add(id(part))
    if not isinstance(part, dict) or not all(
        isinstance(name, str) and len(name) <= LONGEST for name in part
    ):
        raise broken(f"{module.class_name[:LONGEST]!a} has no {key} by name")
    return part
