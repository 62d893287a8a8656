"""Generators of POSTECH-CVLab/PyTorch-StudioGAN: backbones big_resnet, resnet and deep_conv.

"state_dict" of a checkpoint `model=G_ema-...pth` or `model=G-...pth` (found by itself),
conditional or not, with or without spectral norm and attention; of old versions too, whose
conditional batch norm of resnet and deep_conv was an embedding of the class.

Latents truncated by `-tf` are exactly mode "resample". Batch norm's statistics are the running ones
of the checkpoint: published scores with `-std_stat` are of statistics taken anew for sampling, and
those with `-batch_stat` of the batch itself, which no bundle has.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ganexport.importers._biggan import (
    SelfAttention,
    class_names,
    conv,
    linear,
    modulate,
    of_condition,
    start_size,
    up_conv,
)
from ganexport.importers._published import Norm, Published, plain, torch_norm
from ganexport.importers._resampling import double
from ganexport.subjects.spec import Spec
from ganinfer.errors import ExportError
from gantrain.models.biggan import joined

Backbone = Literal["big_resnet", "resnet", "deep_conv"]
Activation = Literal["ReLU", "Leaky_ReLU", "ELU", "GELU"]
MakeNorm = Callable[[int], nn.Module]  # of so many channels; takes maps and condition

EPS = 1e-4  # of every batch norm
ATTENTION = ("conv1x1_theta", "conv1x1_phi", "conv1x1_g", "conv1x1_attn", "sigma")
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "ReLU": nn.ReLU,
    "Leaky_ReLU": lambda: nn.LeakyReLU(0.1),
    "ELU": nn.ELU,
    "GELU": nn.GELU,
}


def read(
    state: dict[str, Tensor],
    *,
    backbone: Backbone | None = None,
    g_act_fn: Activation = "ReLU",
    z_prior: Literal["gaussian", "uniform"] = "gaussian",
) -> tuple[nn.Module, Spec]:
    """The generator; the options are named as in StudioGAN's configs, and default as they do.

    Args:
        state: of the checkpoint's "state_dict".
        backbone: is asked for only where the names are those of two.
        g_act_fn: activation.
        z_prior: of the latents.

    Returns:
        The network, z (N, Z) and, if it is conditional, y (N,) -> (N, 3, H, W), and what it does
        not say of itself.

    Raises:
        ExportError: the state is another network's, or of a backbone that is not read.
    """
    published = Published(state, "studiogan: expected the state_dict of a StudioGAN generator")
    network = published.load(build(published, backbone, g_act_fn), state)
    return network, Spec(
        z_dim=network.z_dim,
        output_range="-1:1",
        classes=class_names(network.num_classes),
        z_distribution="normal" if z_prior == "gaussian" else "uniform",
        family=network.family,
    )


def build(published: Published, backbone: Backbone | None, g_act_fn: Activation) -> "Generator":
    """A skeleton of the published names.

    Raises:
        ExportError: a backbone that is not read, or that has to be said.
    """
    readable = ", which is not read; big_resnet, resnet and deep_conv are"
    published.refuse(".conv2d4.", "backbone big_resnet_deep" + readable)
    published.refuse("info_", "InfoGAN's injection" + readable)
    published.refuse("synthesis.", "backbone stylegan2 or stylegan3" + readable)
    found = backbone_of(published, backbone)
    with torch.device("meta"):
        return Generator(published, found, g_act_fn)


def backbone_of(published: Published, said: Backbone | None) -> Backbone:
    """The backbone that has these names.

    Raises:
        ExportError: two have, and none is said; or another one is said.
    """
    gain, first = (weight_name(published, layer) for layer in ("blocks.0.0.bn1.gain", "linear0"))
    possible: list[Backbone] = ["resnet"]
    if weight_name(published, "blocks.0.0.deconv0") in published:
        possible = ["deep_conv"]
    elif "shared.weight" in published:
        possible = ["big_resnet"]
    elif gain in published and published.shape(gain, 2)[1] == published.shape(first, 2)[1]:
        # A gain is of a chunk of z, as long as the first layer's, or of as many classes.
        possible = ["big_resnet", "resnet"]
    if said is None and len(possible) > 1:
        raise ExportError(
            f"{published.what}: the names are those of an unconditional big_resnet and of a resnet"
            f" of {published.shape(gain, 2)[1]} classes; say backbone=big_resnet or backbone=resnet"
        )
    if said is not None and said not in possible:
        raise ExportError(
            f"{published.what}: backbone={said}, and the names are those of {possible[0]};"
            " leave backbone out"
        )
    return said or possible[0]


def weight_name(published: Published, layer: str) -> str:
    """The name of a layer's matrix, with spectral norm or without."""
    normalised = f"{layer}.weight_orig"
    return normalised if normalised in published else f"{layer}.weight"


def norm_maker(published: Published, name: str, norm: Norm) -> tuple[MakeNorm, int]:
    """What makes the batch norms of the blocks, all like one, and the size of their condition.

    The size is the length of a vector or the number of classes; 0 if there is no condition.
    """
    gain, embedding = (weight_name(published, f"{name}.{part}") for part in ("gain", "embed0"))
    if gain in published:
        length = published.shape(gain, 2)[1]
        return (
            lambda channels: ConditionalBatchNorm(
                channels, ("gain", "bias"), lambda: linear(norm, length, channels, bias=False)
            )
        ), length
    if embedding in published:
        num_classes = published.shape(embedding, 2)[0]
        return (
            lambda channels: ConditionalBatchNorm(
                channels, ("embed0", "embed1"), lambda: embed(norm, num_classes, channels)
            )
        ), num_classes
    return (lambda channels: nn.BatchNorm2d(channels, eps=EPS)), 0


class Generator(nn.Module):
    """z (N, Z), y (N,) or None -> images (N, 3, H, W) on [-1, 1].

    The condition of big_resnet's blocks is the shared embedding of y, if there is one, and the
    block's chunk of z; that of the others is y, or none.
    """

    def __init__(self, published: Published, family: Backbone, g_act_fn: Activation) -> None:
        super().__init__()
        self.family = family
        norm = torch_norm if "linear0.weight_orig" in published else plain
        activation = ACTIVATIONS[g_act_fn]
        is_conv = family == "deep_conv"
        maker, condition_size = norm_maker(published, f"blocks.0.0.bn{0 if is_conv else 1}", norm)
        self.shared: nn.Embedding | None = None
        self.num_classes = 0 if family == "big_resnet" else condition_size
        if "shared.weight" in published:
            self.num_classes, embedding_dim = published.shape("shared.weight", 2)
            self.shared = nn.Embedding(self.num_classes, embedding_dim)

        self.blocks = nn.ModuleList()
        widths: list[int] = []  # of the maps before each block, and after the last
        for n in range(max(published.count("blocks."), 1)):
            prefix = f"blocks.{n}.0."
            if prefix + "sigma" in published:
                theta = weight_name(published, prefix + "conv1x1_theta")
                layer: nn.Module = SelfAttention(published.shape(theta, 4)[1], norm, ATTENTION)
            else:
                name = prefix + ("deconv0" if is_conv else "conv2d1")
                found = published.shape(weight_name(published, name), 4)
                in_channels, out_channels = found[:2] if is_conv else found[1::-1]
                block = ConvBlock if is_conv else Block
                layer = block(in_channels, out_channels, norm, maker, activation())
                widths = [*widths[:-1], in_channels, out_channels]
            self.blocks.append(nn.ModuleList([layer]))
        first = weight_name(published, "linear0")
        self._chunk = published.shape(first, 2)[1]
        self.z_dim = self._chunk * (len(widths) if family == "big_resnet" else 1)
        self._start = start_size(published, first, widths[0])
        self.linear0 = linear(norm, self._chunk, widths[0] * self._start**2)
        if is_conv:
            self.conv4 = conv(norm, widths[-1], 3, 3)
        else:
            self.bn4 = nn.BatchNorm2d(widths[-1], eps=EPS)
            self.activation = activation()
            self.conv2d5 = conv(norm, widths[-1], 3, 3)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        first, *chunks = torch.split(z, self._chunk, dim=1)
        x = self.linear0(first).reshape(z.shape[0], -1, self._start, self._start)
        condition = y if self.shared is None else self.shared(y)
        remaining = iter(chunks)
        for holder in self.blocks:
            assert isinstance(holder, nn.ModuleList)
            layer = holder[0]
            if isinstance(layer, SelfAttention):
                x = layer(x)
            elif chunks:
                x = layer(x, joined(condition, next(remaining)))
            else:
                x = layer(x, condition)
        if self.family == "deep_conv":
            return torch.tanh(self.conv4(x))
        return torch.tanh(self.conv2d5(self.activation(self.bn4(x))))


class Block(nn.Module):
    """Doubles, 3x3, 3x3; the skip doubles, 1x1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm,
        batch_norm: MakeNorm,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.bn1 = batch_norm(in_channels)
        self.bn2 = batch_norm(out_channels)
        self.conv2d0 = conv(norm, in_channels, out_channels, 1)
        self.conv2d1 = up_conv(norm, in_channels, out_channels)
        self.conv2d2 = conv(norm, out_channels, out_channels, 3)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        h = self.conv2d1(self.activation(normalised(self.bn1, x, condition)))
        h = self.conv2d2(self.activation(normalised(self.bn2, h, condition)))
        # The 1x1 convolution of doubled maps is the doubled one, at four times the price.
        out: Tensor = h + double(self.conv2d0(x))
        return out


class ConvBlock(nn.Module):
    """A transposed convolution that doubles."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm,
        batch_norm: MakeNorm,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.deconv0 = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1)
        norm(self.deconv0)
        self.bn0 = batch_norm(out_channels)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        out: Tensor = self.activation(normalised(self.bn0, self.deconv0(x), condition))
        return out


class ConditionalBatchNorm(nn.Module):
    """Gain and bias are of the condition; names are what these two layers are called."""

    def __init__(
        self, channels: int, names: tuple[str, str], make: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self._names = names
        self.bn = nn.BatchNorm2d(channels, eps=EPS, affine=False)
        for name in names:
            self.add_module(name, make())

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, bias = (of_condition(self.get_submodule(name), condition) for name in self._names)
        return modulate(self.bn(x), gain, bias)


def normalised(batch_norm: nn.Module, x: Tensor, condition: Tensor | None) -> Tensor:
    """The batch norm of x; a plain one does not look at the condition."""
    out: Tensor = (
        batch_norm(x) if isinstance(batch_norm, nn.BatchNorm2d) else batch_norm(x, condition)
    )
    return out


def embed(norm: Norm, num_classes: int, channels: int) -> nn.Embedding:
    """A vector for each class."""
    layer = nn.Embedding(num_classes, channels)
    norm(layer)
    return layer
