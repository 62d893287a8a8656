"""What the importers of BigGAN's kin share.

N batch; C, H, W; Z latent; K classes; F length of a condition. y is int64 (N,).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers._published import Norm, Published
from ganexport.importers._resampling import double
from ganinfer.errors import ExportError
from gantrain.models._layers import UpConv2d


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
