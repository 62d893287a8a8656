"""Other projects' own generators, to run beside our importers where they are installed.

What only their trainers need (a GPU, loggers, metrics) need not be there: a stand-in, in which no
image is made, lets the packages be imported.
"""

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock, patch

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ganinfer.drawing.images import to_uint8

FIXTURES = Path(__file__).parent / "importers"
Shapes = dict[str, tuple[int, ...]]
ONLY_FOR_TRAINING = {
    *("aim", "fire", "retry", "torchvision", "adabelief_pytorch"),
    *("vector_quantize_pytorch", "linear_attention_transformer"),
    *("torch_mimicry.training", "torch_mimicry.metrics", "torch_mimicry.datasets"),
}


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()


class _StandIns(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        parents = (name.rsplit(".", n)[0] for n in range(name.count(".") + 1))
        known = any(parent in ONLY_FOR_TRAINING for parent in parents)
        return spec_from_loader(name, self, is_package=True) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def original(name: str) -> ModuleType:
    """A module of another project; the test is skipped if it is not installed."""
    finder = _StandIns()
    sys.meta_path.insert(0, finder)
    try:
        with patch.object(torch.cuda, "is_available", lambda: True):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        pytest.skip(f"{name} is not installed ({error})")
    finally:
        sys.meta_path.remove(finder)
        for key in [k for k, m in sys.modules.items() if isinstance(m, _StandIn)]:
            del sys.modules[key]


def shapes_of(file: str) -> dict[str, Shapes]:
    """Of importers/*_names.txt: configuration -> name -> shape."""
    configs: dict[str, Shapes] = {}
    for line in (FIXTURES / file).read_text().splitlines():
        first, *rest = line.split()
        if first == "#":
            shapes = configs[rest[0]] = {}
        else:
            shapes[first] = tuple(map(int, rest))
    return configs


def draw(shapes: Shapes, scales: dict[str, float] | None = None) -> dict[str, Tensor]:
    """A state whose images are neither flat nor saturated; u and v are one power iteration old.

    scales: patterns of names -> what their values are multiplied by.
    """
    random = np.random.RandomState(0)
    state = {}
    for name, shape in shapes.items():
        value = torch.tensor(random.standard_normal(shape), dtype=torch.float32)
        last = name.rsplit(".", 1)[-1]
        if last == "num_batches_tracked":
            value = torch.tensor(7)
        elif "var" in last:
            value = value.abs() + 0.5
        elif last == "weight" and value.ndim > 1:
            value = value / value[0].numel() ** 0.5
        elif last == "bias":
            value = 0.1 * value
        elif last == "u0":
            value = functional.normalize(value)
        for pattern, scale in (scales or {}).items():
            if re.search(pattern, name):
                value = value * scale
        state[name] = value
    for name in shapes:
        if name.endswith("weight_orig"):
            layer = name.removesuffix("weight_orig")
            matrix = _matrix(state[name], len(state[layer + "weight_u"]))
            v = functional.normalize(matrix.T @ state[layer + "weight_u"], dim=0)
            u = functional.normalize(matrix @ v, dim=0)
            state[layer + "weight_u"] = u
            state[layer + "weight_v"] = functional.normalize(matrix.T @ u, dim=0)
    return state


def _matrix(weight: Tensor, num_rows: int) -> Tensor:
    """Transposed convolutions have their rows in the second axis."""
    turned = len(weight) != num_rows
    return (weight.transpose(0, 1) if turned else weight).flatten(1)


def eight(images: Tensor) -> list[float]:
    """Eight values from all over the images."""
    values = images.flatten()
    return [round(float(v), 5) for v in values[:: len(values) // 8 + 1]]


def assert_same_pixels(found: Tensor, expected: Tensor) -> None:
    """No pixel is more than one step of 255 off, and at most one of 10,000 is."""
    steps = [to_uint8(images.detach().numpy()).astype(int) for images in (found, expected)]
    difference = np.abs(steps[0] - steps[1])
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-4


@contextmanager
def noise_of(drawn: list[Tensor]) -> Iterator[None]:
    """Let torch.randn give these, (H, W) each, the same for all images."""
    waiting = list(drawn)

    def given(count: int, channels: int, *size: int, **_: object) -> Tensor:
        noise = waiting.pop(0)
        assert (channels, *size) == (1, *noise.shape)
        return noise.expand(count, 1, -1, -1)

    with patch.object(torch, "randn", given):
        yield
    assert not waiting
