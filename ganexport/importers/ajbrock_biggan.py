"""BigGAN and BigGAN-deep (1809.11096) of ajbrock/BigGAN-PyTorch, as its training saves them.

`G_ema.pth`, or `G.pth`: with or without hierarchical latents, shared embedding, spectral norm and
attention; all of this is read off the names and shapes. Batch norm's statistics are the running
ones, as its evaluation in test mode takes them. BigGAN-deep is that of the repository's last
commit with its two blocks for each resolution; nobody published weights of it.

Its samples scale untruncated latents by `--z_var`, exactly mode "scale"; by default it is 1.
Not here: statistics of --cross_replica and --mybn, and group norm, under other names.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers._biggan import (
    SelfAttention,
    bottleneck,
    class_names,
    conv,
    linear,
    modulate,
    of_condition,
    start_size,
    up_conv,
)
from ganexport.importers._published import Norm, Published, brock_norm, plain
from ganexport.importers._resampling import double
from ganexport.subjects.spec import Spec

MakeNorm = Callable[[int], nn.Module]  # of so many channels; takes maps and condition

OUTPUT_EPS = 1e-5  # of the last batch norm, whatever --BN_eps says
ATTENTION = ("theta", "phi", "g", "o", "gamma")


def read(state: dict[str, Tensor], *, bn_eps: float = 1e-5) -> tuple[nn.Module, Spec]:
    """The generator.

    Args:
        state: of G_ema.pth.
        bn_eps: what it was trained with, --BN_eps; 1e-5 in the repository's scripts.

    Returns:
        The network, z (N, Z), y (N,) -> (N, 3, H, W), and what it does not say of itself.

    Raises:
        ExportError: the state is another network's.
    """
    published = Published(state, "ajbrock_biggan: expected G_ema.pth of BigGAN-PyTorch")
    network = published.load(build(published, bn_eps), state)
    return network, Spec(
        z_dim=network.z_dim,
        output_range="-1:1",
        classes=class_names(network.num_classes),
        family=network.family,
    )


def build(published: Published, bn_eps: float) -> "Generator":
    """A skeleton of the published names.

    Raises:
        ExportError: it was trained with what is not supported here.
    """
    trained_alike = "; only --norm_style bn without it can be read: train it so"
    published.refuse(".bn.running_", "--cross_replica" + trained_alike)
    published.refuse(".accumulation_counter", "--mybn" + trained_alike)
    published.refuse(".u1", "--num_G_SVs above 1; take out the names *.u1, *.sv1 and so on")
    with torch.device("meta"):
        return Generator(published, bn_eps)


class Generator(nn.Module):
    """z (N, Z), y (N,) -> images (N, 3, H, W) on [-1, 1].

    A block's condition is the shared embedding of y; beside it stand, in BigGAN, the block's chunk
    of z, if it is hierarchical, and in BigGAN-deep all of z. Without shared embedding it is y.
    """

    def __init__(self, published: Published, bn_eps: float) -> None:
        super().__init__()
        norm = brock_norm if "linear.u0" in published else plain
        self._deep = "blocks.0.0.conv3.weight" in published
        self.family = "biggan_deep" if self._deep else "biggan"
        num_blocks = published.count("blocks.")
        rows, columns = published.shape("blocks.0.0.bn1.gain.weight", 2)
        self.shared: nn.Embedding | None = None
        self.num_classes, embedding_dim = rows, 0
        if self._deep or "shared.weight" in published:
            self.num_classes, embedding_dim = published.shape("shared.weight", 2)
            self.shared = nn.Embedding(self.num_classes, embedding_dim)
        first_dim = published.shape("linear.weight", 2)[1]
        hierarchical = embedding_dim > 0 and columns > embedding_dim and not self._deep
        self.z_dim = first_dim - embedding_dim if self._deep else first_dim
        self._chunk = self.z_dim  # what the first layer takes of it
        self.z_dim *= num_blocks + 1 if hierarchical else 1

        def to_channels(channels: int) -> nn.Module:
            if self.shared is None:
                return nn.Embedding(self.num_classes, channels)
            return linear(norm, columns, channels, bias=False)

        def batch_norm(channels: int) -> ConditionalBatchNorm:
            return ConditionalBatchNorm(
                to_channels(channels), to_channels(channels), channels, bn_eps
            )

        self.blocks = nn.ModuleList()
        last = "conv4" if self._deep else "conv2"
        width = 0
        for n in range(num_blocks):
            in_channels = published.shape(f"blocks.{n}.0.conv1.weight", 4)[1]
            width = published.shape(f"blocks.{n}.0.{last}.weight", 4)[0]
            layers: list[nn.Module] = []
            if self._deep:
                middle = published.shape(f"blocks.{n}.0.conv1.weight", 4)[0]
                # Of the two blocks of a resolution the second doubles it.
                widths = (in_channels, middle, width)
                layers.append(BottleneckBlock(widths, norm, batch_norm, doubles=n % 2 == 1))
            else:
                layers.append(Block(in_channels, width, norm, batch_norm))
            if f"blocks.{n}.1.gamma" in published:
                layers.append(SelfAttention(width, norm, ATTENTION, gain_shape=()))
            self.blocks.append(nn.ModuleList(layers))
        first = published.shape("blocks.0.0.conv1.weight", 4)[1]
        self._start = start_size(published, "linear.weight", first)
        self.linear = linear(norm, first_dim, first * self._start**2)
        self.output_layer = nn.Sequential(
            OutputBatchNorm(width), nn.ReLU(), conv(norm, width, 3, 3)
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        shared = y if self.shared is None else self.shared(y)
        first, *chunks = torch.split(z, self._chunk, dim=1)
        if self._deep:
            first = shared = torch.cat([shared, z], dim=1)
        x = self.linear(first).reshape(z.shape[0], -1, self._start, self._start)
        for n, layers in enumerate(self.blocks):
            condition = torch.cat([shared, chunks[n]], dim=1) if chunks else shared
            assert isinstance(layers, nn.ModuleList)
            for layer in layers:
                x = layer(x) if isinstance(layer, SelfAttention) else layer(x, condition)
        return torch.tanh(self.output_layer(x))


class Block(nn.Module):
    """Doubles, 3x3, 3x3; the skip doubles, 1x1."""

    def __init__(
        self, in_channels: int, out_channels: int, norm: Norm, batch_norm: MakeNorm
    ) -> None:
        super().__init__()
        self.conv1 = up_conv(norm, in_channels, out_channels)
        self.conv2 = conv(norm, out_channels, out_channels, 3)
        self.conv_sc = conv(norm, in_channels, out_channels, 1)
        self.bn1 = batch_norm(in_channels)
        self.bn2 = batch_norm(out_channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h = self.conv1(torch.relu(self.bn1(x, condition)))
        h = self.conv2(torch.relu(self.bn2(h, condition)))
        # The 1x1 convolution of doubled maps is the doubled one, at four times the price.
        out: Tensor = h + double(self.conv_sc(x))
        return out


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 3x3, 1x1; the skip drops the channels that are too many."""

    def __init__(
        self, widths: tuple[int, int, int], norm: Norm, batch_norm: MakeNorm, *, doubles: bool
    ) -> None:
        super().__init__()
        in_channels, middle, self._out_channels = widths
        self._doubles = doubles
        self.conv1 = conv(norm, in_channels, middle, 1)
        self.conv2 = up_conv(norm, middle, middle) if doubles else conv(norm, middle, middle, 3)
        self.conv3 = conv(norm, middle, middle, 3)
        self.conv4 = conv(norm, middle, self._out_channels, 1)
        self.bn1 = batch_norm(in_channels)
        self.bn2 = batch_norm(middle)
        self.bn3 = batch_norm(middle)
        self.bn4 = batch_norm(middle)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        layers = [
            (self.bn1, self.conv1),
            (self.bn2, self.conv2),
            (self.bn3, self.conv3),
            (self.bn4, self.conv4),
        ]
        return bottleneck(x, condition, layers, self._out_channels, doubles=self._doubles)


class ConditionalBatchNorm(nn.Module):
    """Gain and bias are of the condition."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, gain: nn.Module, bias: nn.Module, channels: int, eps: float) -> None:
        super().__init__()
        self.gain, self.bias, self._eps = gain, bias, eps
        self.register_buffer("stored_mean", torch.empty(channels))
        self.register_buffer("stored_var", torch.empty(channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        normal = functional.batch_norm(x, self.stored_mean, self.stored_var, eps=self._eps)
        gain, bias = of_condition(self.gain, condition), of_condition(self.bias, condition)
        return modulate(normal, gain, bias)


class OutputBatchNorm(nn.Module):
    """Gain and bias are its own."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.register_buffer("stored_mean", torch.empty(channels))
        self.register_buffer("stored_var", torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.stored_mean, self.stored_var
        return functional.batch_norm(x, mean, var, self.gain, self.bias, eps=OUTPUT_EPS)
