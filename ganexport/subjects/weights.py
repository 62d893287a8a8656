"""Weights from files that other programs wrote; nothing but tensors is read."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ganexport.subjects import pickles
from ganinfer.errors import ExportError


def load_weights(module: nn.Module, path: Path, key: str | None = None) -> nn.Module:
    """Load a file's weights into a module, strictly; nothing is unpickled but tensors.

    Args:
        module: the network.
        path: .safetensors, or what torch.save wrote of tensors.
        key: of the state dict within the file, such as "g_ema"; none if the file is one.

    Returns:
        The module.

    Raises:
        ExportError: the file is broken, or its names or shapes are not the module's.
    """
    state = read_state(path, key)
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in state.items()}
    missing, unknown = sorted(own.keys() - theirs.keys()), sorted(theirs.keys() - own.keys())
    other = sorted(n for n in own.keys() & theirs.keys() if own[n] != theirs[n])
    if missing or unknown or other:
        shapes = [f"{n} {theirs[n]}, expected {own[n]}" for n in other]
        raise ExportError(
            f"{path}: not the weights of {type(module).__name__}:"
            f" {len(missing)} missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]},"
            f" {len(other)} of other shapes {shapes[:3]}"
        )
    module.load_state_dict(state)
    return module


def read_state(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """The state dict in a file; see `load_weights`. A `.pkl` of NVIDIA's: see `read_pickled`.

    Raises:
        ExportError: the file is broken, or holds something else.
    """
    if path.suffix == ".pkl" and pickles.is_plain(path):
        return pickles.read_pickled(path, key)
    try:
        if path.suffix == ".safetensors":
            tree: object = load_file(path)
        else:
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ExportError(f"{path}: no such file; expected weights") from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise ExportError(f"{path}: cannot be read ({_first_line(error)})") from None
    except Exception as error:  # pickle.UnpicklingError, raised for whatever is no tensor
        raise ExportError(
            f"{path}: holds more than tensors ({_first_line(error)}); save its state_dict() alone,"
            " best as .safetensors"
        ) from None
    if key is not None:
        if not isinstance(tree, dict) or key not in tree:
            keys = list(tree)[:8] if isinstance(tree, dict) else type(tree).__name__
            raise ExportError(f"{path}: no {key!r} in it; found {keys}")
        tree = tree[key]
    if not isinstance(tree, dict) or not all(isinstance(v, Tensor) for v in tree.values()):
        keys = list(tree)[:8] if isinstance(tree, dict) else type(tree).__name__
        raise ExportError(
            f"{path}: no state dict; found {keys}; say which of them it is with --weights-key"
        )
    return {str(name): value for name, value in tree.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
