"""What the importers of BigGAN's kin share.

A network is first a skeleton on the meta device whose parameters have the published names. It takes
the published state strictly, and is then settled: spectral norm is multiplied into the weights.
N batch; C, H, W; Z latent; K classes; F length of a condition. y is int64 (N,).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganinfer.errors import ExportError
from gantrain.models._layers import UpConv2d

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
def settle(network: nn.Module) -> None:
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


def conv(
    norm: Norm, in_channels: int, out_channels: int, size: int, *, bias: bool = True
) -> nn.Conv2d:
    """A convolution that keeps H and W."""
    layer = nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=bias)
    norm(layer)
    return layer


def up_conv(norm: Norm, in_channels: int, out_channels: int) -> UpConv2d:
    """Nearest-neighbour upsampling, then a 3x3 convolution."""
    layer = UpConv2d(in_channels, out_channels)
    norm(layer)
    return layer


def linear(norm: Norm, in_features: int, out_features: int, *, bias: bool = True) -> nn.Linear:
    """A matrix."""
    layer = nn.Linear(in_features, out_features, bias=bias)
    norm(layer)
    return layer


def double(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return functional.interpolate(x, scale_factor=2.0)


def of_condition(layer: nn.Module, condition: Tensor) -> Tensor:
    """A condition's (N, C): of a vector (N, F) by a matrix, of y by an embedding or a column.

    A class's column is the matrix times its one-hot vector.
    """
    if isinstance(layer, nn.Linear) and not condition.is_floating_point():
        return functional.embedding(condition, layer.weight.t())
    out: Tensor = layer(condition)
    return out


def modulate(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """X * (1 + gain) + bias; x (N, C, H, W), gain and bias (N, C)."""
    return x * (1 + gain[:, :, None, None]) + bias[:, :, None, None]


def bottleneck(
    x: Tensor,
    condition: Tensor,
    layers: Sequence[tuple[nn.Module, nn.Module]],
    out_channels: int,
    *,
    doubles: bool,
) -> Tensor:
    """BigGAN-deep's block: norms and convolutions by turns; the skip drops channels, may double."""
    h = x
    for norm, convolution in layers:
        h = convolution(torch.relu(norm(h, condition)))
    skip = x[:, :out_channels]
    return h + (double(skip) if doubles else skip)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """SAGAN's softmax(query^T key) value; keys and values are max-pooled 2x2.

    (N, C/8, H, W), the same, (N, C/2, H, W) -> (N, C/2, H, W).
    """
    _, channels, height, width = value.shape
    query = query.flatten(2)  # (N, C/8, HW)
    key = functional.max_pool2d(key, 2).flatten(2)  # (N, C/8, HW/4)
    value = functional.max_pool2d(value, 2).flatten(2)  # (N, C/2, HW/4)
    weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # (N, HW, HW/4)
    return (value @ weights.transpose(1, 2)).reshape(-1, channels, height, width)


class SelfAttention(nn.Module):
    """x + gain * attended, its parts under their published names.

    names: of theta, phi, g, the last convolution and the gain.
    """

    def __init__(
        self,
        channels: int,
        norm: Norm,
        names: tuple[str, str, str, str, str],
        gain_shape: tuple[int, ...] = (1,),
    ) -> None:
        super().__init__()
        self._names = names
        *of_x, last, gain = names
        for name, wide in zip(of_x, (channels // 8, channels // 8, channels // 2), strict=True):
            self.add_module(name, conv(norm, channels, wide, 1, bias=False))
        self.add_module(last, conv(norm, channels // 2, channels, 1, bias=False))
        self.register_parameter(gain, nn.Parameter(torch.empty(gain_shape)))

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g, last = (self.get_submodule(name) for name in self._names[:4])
        out: Tensor = x + self.get_parameter(self._names[4]) * last(attend(theta(x), phi(x), g(x)))
        return out


def start_size(published: Published, name: str, in_channels: int) -> int:
    """H of the first maps, from the rows of the first matrix: C H H.

    Raises:
        ExportError: there is no such H.
    """
    rows = published.shape(name, 2)[0]
    size = math.isqrt(rows // max(in_channels, 1))
    if rows != in_channels * size * size or not rows:
        raise ExportError(
            f"{published.what}: {name} has {rows} rows, and the first block {in_channels} channels;"
            " expected rows = channels x H x H; the file holds another network"
        )
    return size


def class_names(num_classes: int) -> list[str]:
    """Numbers: the state names none."""
    return [str(number) for number in range(num_classes)]
