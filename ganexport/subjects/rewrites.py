"""Exact algebra on a generator before it is traced: the same function in fewer operations.

A rewrite replaces layers of one network, in place; each can be left out (`gan export
--without NAME`), and benchmarks/rewrites.py shows what each is worth on every backend. One more,
`ganexport.graph.subpixel`, is made of the traced graph.
"""

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.graph.subpixel import SUBPIXEL
from ganexport.subjects.standing import StandingNorm
from ganinfer.errors import ConfigError
from ganinfer.lookup import suggest
from gantrain.models import biggan, biggan_deep
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
    linear in c, and their coefficients are constants. They are convolutions of one pixel each, for
    runtimes lay those out as the maps that they scale, and fuse what needs no cutting up.
    """

    def __init__(self, layer: ModulatedBatchNorm2d) -> None:
        super().__init__()
        inverse, shift = _normaliser(layer.norm)
        gain, bias = layer.gain_and_bias.weight.chunk(2)
        self.scale = _of_one_pixel(gain * inverse[:, None], inverse)
        self.shift = _of_one_pixel(bias + gain * shift[:, None], shift)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        pixel = condition[:, :, None, None]
        scaled: Tensor = x * self.scale(pixel) + self.shift(pixel)
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


class ScaledByTruncation(nn.Module):
    """Either of the two whose statistics are looked up by truncation: one product, one sum."""

    def __init__(self, layer: ModulatedBatchNorm2d | ConditionalBatchNorm2d) -> None:
        super().__init__()
        norm: nn.Module = layer.norm
        assert isinstance(norm, StandingNorm)
        assert layer.gain_and_bias is not None
        self.norm, self.gain_and_bias = norm, layer.gain_and_bias

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        norm: StandingNorm = self.norm
        scale, shift = norm.scale_and_shift()
        gain, bias = self.gain_and_bias(condition).chunk(2, dim=1)
        scale, shift = scale * (1 + gain), shift * (1 + gain) + bias
        scaled: Tensor = x * scale[:, :, None, None] + shift[:, :, None, None]
        return scaled


def _upsampling(network: nn.Module) -> None:
    """Doubling and a 3x3 convolution are one 4x4 transposed convolution of stride 2."""
    _replace(network, lambda layer: layer.plain() if isinstance(layer, UpConv2d) else None)


def _norms(network: nn.Module) -> None:
    """Batch norm and what the condition does after it are one product and one sum."""

    def scaled(layer: nn.Module) -> nn.Module | None:
        if not isinstance(layer, ModulatedBatchNorm2d | ConditionalBatchNorm2d):
            return None
        norm: nn.Module = layer.norm
        if layer.gain_and_bias is None:
            return None
        if isinstance(norm, StandingNorm):
            return ScaledByTruncation(layer)
        if not _fixed(norm):
            return None
        if isinstance(layer, ModulatedBatchNorm2d):
            return ScaledByCondition(layer)
        return ScaledByClass(layer)

    _replace(network, scaled)


def _classes(network: nn.Module) -> None:
    """A matrix times a class's embedding is a constant: W [z, e_y] = [W_z, W_e E^T] [z, onehot(y)].

    Worth it where there are fewer classes than numbers in an embedding.
    """
    for generator in network.modules():
        if not isinstance(generator, biggan.Generator | biggan_deep.Generator):
            continue
        table = generator.embed
        if table is None or table.num_embeddings >= table.embedding_dim:
            continue
        for layer in _of_condition(generator):
            own, of_class = layer.weight.tensor_split([-table.embedding_dim], dim=1)
            of_class = torch.einsum("oe...,ke->ok...", of_class.double(), table.weight.double())
            layer.weight = nn.Parameter(torch.cat([own, of_class.float()], dim=1))
        num_classes = table.num_embeddings
        generator.embed = nn.Embedding(num_classes, num_classes)
        generator.embed.weight = nn.Parameter(torch.eye(num_classes))


def _of_condition(
    generator: biggan.Generator | biggan_deep.Generator,
) -> Iterator[nn.Linear | nn.Conv2d]:
    """The matrices that take the embedding, in their last columns."""
    if isinstance(generator, biggan_deep.Generator):
        yield generator.project
    for layer in generator.modules():
        if isinstance(layer, ScaledByCondition):
            yield from (layer.scale, layer.shift)
        elif isinstance(layer, ModulatedBatchNorm2d | ScaledByTruncation):
            assert isinstance(layer.gain_and_bias, nn.Linear)
            yield layer.gain_and_bias


REWRITES: dict[str, Callable[[nn.Module], None]] = {
    "upsampling": _upsampling,
    "norms": _norms,
    "classes": _classes,
}


def check_rewrites(names: Collection[str]) -> None:
    """Refuse a name that is no rewrite's.

    Raises:
        ConfigError: there is none of that name.
    """
    known = [*REWRITES, SUBPIXEL]
    for name in names:
        if name not in known:
            raise ConfigError(f"--without: there is no {name!r}; {suggest(name, known)}")


@torch.no_grad()
def rewrite(network: nn.Module, without: Collection[str] = ()) -> nn.Module:
    """Apply all rewrites but some to a network in eval mode, in place; returns it."""
    check_rewrites(without)
    for name, change in REWRITES.items():
        if name not in without:
            change(network)
    _replace(network, lambda layer: Doubled(layer) if isinstance(layer, UpConv2d) else None)
    return network.eval().requires_grad_(False)


def _replace(network: nn.Module, change: Callable[[nn.Module], nn.Module | None]) -> None:
    """Put what `change` gives for a layer, if anything, in its place."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if (changed := change(layer)) is not None:
                setattr(parent, name, changed)


def _normaliser(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """1/s and -m/s: batch norm in eval mode is x / s - m / s."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    inverse = torch.rsqrt(norm.running_var.double() + norm.eps)
    return inverse.float(), (-norm.running_mean.double() * inverse).float()


def _of_one_pixel(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A matrix (C, F) and a bias (C,): maps (N, F, 1, 1) -> (N, C, 1, 1)."""
    layer = nn.Conv2d(weight.shape[1], len(weight), 1)
    layer.weight = nn.Parameter(weight[:, :, None, None])
    layer.bias = nn.Parameter(bias)
    return layer


def _fixed(norm: nn.Module) -> bool:
    """Is it a batch norm with statistics of its own, and no gain and bias?"""
    batch_norm = isinstance(norm, nn.BatchNorm2d)
    return batch_norm and norm.running_mean is not None and not norm.affine
