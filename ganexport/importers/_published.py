"""A published state dict: its names and shapes, its spectral norms, loading it strictly.

A network is first a skeleton on the meta device whose parameters have the published names. It takes
the published state, and is then settled: weights are divided by their spectral norm, and what
layers derive of them is kept.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganinfer.errors import ExportError
from gantrain.models._derived import settle

Layer = TypeVar("Layer", bound=nn.Module)
Norm = Callable[[nn.Module], None]  # gives a layer the names of its spectral norm


class Published:
    """The names and shapes of a state dict.

    what: whose state is expected, for messages: "ajbrock_biggan: G_ema.pth of BigGAN-PyTorch".
    """

    def __init__(self, state: Mapping[str, Tensor], what: str) -> None:
        self.shapes = {name: tuple(value.shape) for name, value in state.items()}
        self.what = what

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def shape(self, name: str, num_dims: int) -> tuple[int, ...]:
        """Of a tensor that has to be there.

        Raises:
            ExportError: it is not, or has another number of dimensions.
        """
        if name not in self.shapes:
            raise ExportError(
                f"{self.what}: no {name!r} among its {len(self.shapes)} names"
                f" {list(self.shapes)[:3]}; give the generator's own state dict, as published"
            )
        shape = self.shapes[name]
        if len(shape) != num_dims:
            raise ExportError(f"{self.what}: {name} is {shape}; expected {num_dims} dimensions")
        return shape

    def count(self, prefix: str) -> int:
        """How many numbers follow a prefix: "blocks." -> 5 of blocks.0.0.x to blocks.4.1.x."""
        names = [name for name in self.shapes if name.startswith(prefix)]
        return len({name.removeprefix(prefix).split(".")[0] for name in names})

    def refuse(self, part: str, why: str) -> None:
        """Raise an ExportError if a name has this part."""
        for name in self.shapes:
            if part in name:
                raise ExportError(f"{self.what}: {name!r} belongs to {why}")

    def load(self, network: Layer, state: Mapping[str, Tensor]) -> Layer:
        """Put the state into a skeleton of the same names; settle it.

        Raises:
            ExportError: names are missing or unknown, or shapes differ.
        """
        own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        missing = [name for name in own if name not in self.shapes]
        unknown = [name for name in self.shapes if name not in own]
        differing = [
            f"{name} {self.shapes[name]}, expected {own[name]}"
            for name in own
            if self.shapes.get(name, own[name]) != own[name]
        ]
        if missing or unknown or differing:
            raise ExportError(
                f"{self.what}: {len(missing)} names missing {missing[:3]}, {len(unknown)} unknown"
                f" {unknown[:3]}, {len(differing)} of other shapes {differing[:3]}; give the"
                " generator's own state dict, as published"
            )
        floats = {n: v.float() if v.is_floating_point() else v for n, v in state.items()}
        network.load_state_dict(floats, assign=True)
        divide_by_norms(network)
        settle(network)
        return network.eval().requires_grad_(False)


def plain(layer: nn.Module) -> None:
    """No spectral norm: weight."""


def torch_norm(layer: nn.Module) -> None:
    """torch.nn.utils.spectral_norm's names: weight_orig, weight_u, weight_v."""
    weight = layer.weight
    assert isinstance(weight, nn.Parameter)
    del layer.weight
    layer.register_parameter("weight_orig", weight)
    rows, *columns = _matrix(layer, weight).shape
    layer.register_buffer("weight_u", torch.empty(rows))
    layer.register_buffer("weight_v", torch.empty(*columns))


def brock_norm(layer: nn.Module) -> None:
    """BigGAN-PyTorch's names: weight, u0 and, a record of what it was, sv0."""
    assert isinstance(layer.weight, Tensor)
    layer.register_buffer("u0", torch.empty(1, len(layer.weight)))
    layer.register_buffer("sv0", torch.empty(1))


@torch.no_grad()
def divide_by_norms(network: nn.Module) -> None:
    """Divide weights by their spectral norm as the originals do in eval mode; forget its parts.

    torch takes the stored u and v: sigma = u^T W v. BigGAN-PyTorch goes one step on from the
    stored u at every call and forgets it: v = W^T u / |W^T u|, sigma = |W v|. The eps that networks
    were trained with guards divisions by 0 alone.
    """
    for layer in network.modules():
        if hasattr(layer, "weight_orig"):
            weight = layer.get_parameter("weight_orig")
            v = layer.get_buffer("weight_v")
            sigma = layer.get_buffer("weight_u") @ (_matrix(layer, weight) @ v)
            del layer.weight_orig, layer.weight_u, layer.weight_v
        elif hasattr(layer, "u0"):
            weight = layer.get_parameter("weight")
            matrix = _matrix(layer, weight)
            v = functional.normalize(layer.get_buffer("u0") @ matrix)
            sigma = torch.linalg.vector_norm(v @ matrix.T)
            del layer.weight, layer.u0, layer.sv0
        else:
            continue
        layer.register_parameter("weight", nn.Parameter(weight / sigma))


def _matrix(layer: nn.Module, weight: Tensor) -> Tensor:
    """A row for each output."""
    return (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)
