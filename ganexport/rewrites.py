"""Exact algebra on a generator before it is traced: the same function in fewer operations.

A rewrite replaces layers of one network, in place; each can be left out (`gan export
--without NAME`), and benchmarks/rewrites.py shows what each is worth on every backend.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganinfer.errors import ConfigError
from ganinfer.lookup import suggest
from gantrain.models._layers import ConditionalBatchNorm2d, ModulatedBatchNorm2d, UpConv2d


class Doubled(nn.Module):
    """What UpConv2d stands for, as it is written: double every pixel, then convolve."""

    def __init__(self, layer: UpConv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        wide = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return functional.conv2d(wide, self.weight, self.bias, padding=1)


class ScaledByCondition(nn.Module):
    """ModulatedBatchNorm2d as one product and one sum.

    ((x - m) / s) (1 + W c) + V c = x (1/s + (W/s) c) + (-m/s + (V - m W/s) c): both factors are
    linear in c, and their coefficients are constants.
    """

    def __init__(self, layer: ModulatedBatchNorm2d) -> None:
        super().__init__()
        inverse, shift = _normaliser(layer.norm)
        gain, bias = layer.gain_and_bias.weight.chunk(2)
        scaled = gain * inverse[:, None]
        weight = torch.cat([scaled, bias + gain * shift[:, None]])
        self.scale_and_shift = nn.Linear(weight.shape[1], len(weight))
        self.scale_and_shift.weight = nn.Parameter(weight)
        self.scale_and_shift.bias = nn.Parameter(torch.cat([inverse, shift]))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(condition)[:, :, None, None].chunk(2, dim=1)
        scaled: Tensor = x * scale + shift
        return scaled


class ScaledByClass(nn.Module):
    """ConditionalBatchNorm2d as one product and one sum, looked up by class."""

    def __init__(self, layer: ConditionalBatchNorm2d) -> None:
        super().__init__()
        assert layer.gain_and_bias is not None
        inverse, shift = _normaliser(layer.norm)
        gain, bias = layer.gain_and_bias.weight.chunk(2, dim=1)
        table = torch.cat([(1 + gain) * inverse, bias + (1 + gain) * shift], dim=1)
        self.scale_and_shift = nn.Embedding(*table.shape)
        self.scale_and_shift.weight = nn.Parameter(table)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        scale, shift = self.scale_and_shift(y)[:, :, None, None].chunk(2, dim=1)
        scaled: Tensor = x * scale + shift
        return scaled


def _upsampling(layer: nn.Module) -> nn.Module | None:
    """Doubling and a 3x3 convolution are one 4x4 transposed convolution of stride 2."""
    return layer.plain() if isinstance(layer, UpConv2d) else None


def _norms(layer: nn.Module) -> nn.Module | None:
    """Batch norm and what the condition does after it are one product and one sum."""
    if isinstance(layer, ModulatedBatchNorm2d) and _fixed(layer.norm):
        return ScaledByCondition(layer)
    if isinstance(layer, ConditionalBatchNorm2d) and layer.gain_and_bias and _fixed(layer.norm):
        return ScaledByClass(layer)
    return None


REWRITES: dict[str, Callable[[nn.Module], nn.Module | None]] = {
    "upsampling": _upsampling,
    "norms": _norms,
}


@torch.no_grad()
def rewrite(network: nn.Module, without: Collection[str] = ()) -> nn.Module:
    """Apply all rewrites but some to a network in eval mode, in place; returns it.

    Raises:
        ConfigError: there is no rewrite of a name.
    """
    for name in without:
        if name not in REWRITES:
            raise ConfigError(f"--without: there is no {name!r}; {suggest(name, list(REWRITES))}")
    chosen = [change for name, change in REWRITES.items() if name not in without]
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            changed = next((new for change in chosen if (new := change(layer)) is not None), None)
            if changed is None and isinstance(layer, UpConv2d):
                changed = Doubled(layer)
            if changed is not None:
                setattr(parent, name, changed.eval().requires_grad_(False))
    return network


def _normaliser(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """1/s and -m/s: batch norm in eval mode is x / s - m / s."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    inverse = torch.rsqrt(norm.running_var.double() + norm.eps)
    return inverse.float(), (-norm.running_mean.double() * inverse).float()


def _fixed(norm: nn.Module) -> bool:
    """Is it a batch norm with statistics of its own, and no gain and bias?"""
    batch_norm = isinstance(norm, nn.BatchNorm2d)
    return batch_norm and norm.running_mean is not None and not norm.affine
