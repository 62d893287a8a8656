"""Pickles in the form in which NVIDIA's code publishes networks; the classes are stand-ins."""

import collections
import pickle
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

BUFFERS = {"w_avg", "resample_filter", "noise_const", "magnitude_ema", "freqs", "phases"}
BUFFERS |= {"up_filter", "down_filter", "transform"}


def _reconstruct_persistent_obj(meta: dict) -> None:
    raise AssertionError("unpickled by pickle")


class EasyDict(dict):
    def __getattr__(self, name: str) -> Any:
        return self[name]


class Saved:
    """An instance of a class whose source goes into the file."""

    def __init__(self, class_name: str, state: dict[str, Any], module_src: str) -> None:
        self.class_name, self.state, self.module_src = class_name, state, module_src

    def __reduce__(self) -> tuple:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.module_src,
            "class_name": self.class_name,
            "state": self.state,
        }
        return _reconstruct_persistent_obj, (meta,), None


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let these pickle under the names of NVIDIA's modules."""
    for name, own in {
        "torch_utils.persistence": _reconstruct_persistent_obj,
        "dnnlib.util": EasyDict,
    }.items():
        package, _, _ = name.partition(".")
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
        module = ModuleType(name)
        setattr(module, own.__name__, own)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(own, "__module__", name)


def network(
    state: dict[str, Tensor],
    attributes: dict[str, dict[str, Any]],
    *,
    module_src: str = "",
    prefix: str = "",
) -> Saved:
    """A tree of modules with these tensors.

    Args:
        state: name -> tensor.
        attributes: name of a module -> its attributes, among them "class_name".
        module_src: what stands in the file as the classes' source.
        prefix: of the names of this part.
    """
    own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    parts = dict.fromkeys(name.partition(".")[0] for name in own if "." in name)
    rest = dict(attributes.get(prefix.removesuffix("."), {}))
    direct = {name: value for name, value in own.items() if "." not in name}
    ordered = collections.OrderedDict
    attached = {
        "training": False,
        "_parameters": ordered(
            (n, nn.Parameter(v, requires_grad=False)) for n, v in direct.items() if n not in BUFFERS
        ),
        "_buffers": ordered((n, v) for n, v in direct.items() if n in BUFFERS),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": ordered(),
        "_modules": ordered(
            (n, network(state, attributes, module_src=module_src, prefix=f"{prefix}{n}."))
            for n in parts
        ),
    }
    return Saved(rest.pop("class_name", "Module"), attached | rest, module_src)


def file_of(generator: object, *, protocol: int = 4) -> bytes:
    """As a snapshot of a training holds it, beside others."""
    snapshot = {
        "G": None,
        "G_ema": generator,
        "augment_pipe": None,
        "training_set_kwargs": EasyDict(
            path="x.zip", resolution=np.int64(16), share=np.float32(0.5)
        ),
    }
    return pickle.dumps(snapshot, protocol=protocol)
