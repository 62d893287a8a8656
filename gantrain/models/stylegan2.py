"""StyleGAN2, configuration F: skips in G, residual blocks in D.

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, Analyzing and Improving the Image Quality of
StyleGAN, 1912.04958; with classes as in Training Generative Adversarial Networks with Limited Data,
2006.06676. Names and shapes are those of NVIDIA's stylegan2-ada-pytorch, so that what was trained
there can go on here.

All layers have equalised learning rate: weights begin as N(0, 1) and are scaled at run time. The
paper's game is nonsaturating, with r1, path_length and style_mixing.
"""

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gantrain.models._base import DiscriminatorModule, StyledGenerator
from gantrain.models._derived import Layer
from gantrain.models._layers import Count, MinibatchStddev, start_and_doublings
from gantrain.models._mapping import GAIN, SLOPE, Dense, Mapping
from gantrain.models._synthesis import Synthesis, binomial, clamped

Clamp = Annotated[float, Field(gt=0)]


class Generator(StyledGenerator):
    """z (N, Z), y (N,) or None -> images (N, C, H, W), nominally in [-1, 1].

    w_dim: of a style. depth: layers of the mapping network. channel_base: maps of a side of s
    pixels have channel_base / s channels, channel_max at most. conv_clamp: of the values of each
    layer; 256 lets half precision hold them.
    """

    def __init__(
        self,
        resolution: int,
        channels: int,
        num_classes: int,
        *,
        z_dim: Count = 512,
        w_dim: Count = 512,
        depth: Count = 8,
        channel_base: Count = 32768,
        channel_max: Count = 512,
        conv_clamp: Clamp | None = None,
    ) -> None:
        super().__init__()
        self.z_dim, self.num_classes, self.z_distribution = z_dim, num_classes, "normal"
        (start, _), doublings = start_and_doublings(self, resolution)
        widths = _widths([start << n for n in range(doublings + 1)], channel_base, channel_max)
        self.mapping = Mapping(z_dim, num_classes, w_dim if num_classes else 0, [w_dim] * depth)
        self.synthesis = Synthesis(
            widths, channels, w_dim, start=start, clamp=conv_clamp or math.inf
        )
        self.num_styles, self.w_dim = self.synthesis.num_styles, w_dim


class Discriminator(DiscriminatorModule):
    """Images (N, C, H, W), y (N,) or None -> logits (N,).

    channel_base, channel_max, conv_clamp: see `Generator`. group_size: images of a batch among
    which the standard deviation is told to D. depth: layers of the network that maps classes.
    """

    def __init__(
        self,
        resolution: int,
        channels: int,
        num_classes: int,
        *,
        channel_base: Count = 32768,
        channel_max: Count = 512,
        group_size: Annotated[int, Field(ge=2)] = 4,
        depth: Count = 8,
        conv_clamp: Clamp | None = None,
    ) -> None:
        super().__init__()
        (start, _), doublings = start_and_doublings(self, resolution)
        clamp = conv_clamp or math.inf
        self._sizes = [start << n for n in range(doublings, -1, -1)]
        widths = _widths(self._sizes, channel_base, channel_max)
        for n, size in enumerate(self._sizes[:-1]):
            image_channels = 0 if n else channels
            block = Residual(widths[n], widths[n + 1], image_channels, clamp=clamp)
            self.add_module(f"b{size}", block)
        epilogue = Epilogue(widths[-1], start, group_size=group_size, clamp=clamp)
        self.add_module(f"b{start}", epilogue)
        self.head = Head(widths[-1], num_classes, depth=depth)

    def features(self, images: Tensor) -> Tensor:
        """Images -> (N, F)."""
        x = images
        for size in self._sizes:
            x = self.get_submodule(f"b{size}")(x)
        return x


def _widths(sizes: Sequence[int], base: int, most: int) -> list[int]:
    """Channels of the maps of each size."""
    return [min(max(base // size, 1), most) for size in sizes]


class Convolution(Layer):
    """x (N, I, H, W) -> (N, O, H/down, W/down): gain clamp(lrelu(W * blur(x) + bias)).

    What is halved is blurred first. Without a bias the layer is linear.
    """

    taps: Tensor

    def __init__(
        self,
        num_in: int,
        num_out: int,
        side: int,
        *,
        down: int = 1,
        biased: bool = True,
        gain: float = 1.0,
        clamp: float = math.inf,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_out, num_in, side, side))
        self.bias = nn.Parameter(torch.zeros(num_out)) if biased else None
        self.register_buffer("taps", binomial(), persistent=False)
        self._down, self._gain, self._clamp = down, gain, clamp * gain

    def derive(self) -> dict[str, Tensor]:
        return {"kernel": self.weight / math.sqrt(self.weight[0].numel())}

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.derived()["kernel"]
        side = kernel.shape[-1]
        if self._down == 1:
            x = functional.conv2d(x, kernel, self.bias, padding=side // 2)
        elif side == 1:  # of the blurred maps no other pixels are looked at
            x = functional.conv2d(blurred(x, self.taps, padding=1, stride=2), kernel, self.bias)
        else:
            x = blurred(x, self.taps, padding=1 + side // 2)
            x = functional.conv2d(x, kernel, self.bias, stride=2)
        if self.bias is not None:
            x = GAIN * functional.leaky_relu(x, SLOPE)
        return clamped(self._gain * x, self._clamp)


def blurred(x: Tensor, taps: Tensor, *, padding: int, stride: int = 1) -> Tensor:
    """Each channel of (N, C, H, W) by the same taps (4, 4)."""
    kernel = taps.to(x.dtype).expand(x.shape[1], 1, -1, -1)
    return functional.conv2d(x, kernel, padding=padding, stride=stride, groups=x.shape[1])


class Residual(nn.Module):
    """Maps (N, I, H, W), or the images -> maps (N, O, H/2, W/2).

    The sum of the two ways is divided by sqrt(2), which keeps its variance.
    """

    def __init__(self, num_in: int, num_out: int, image_channels: int, *, clamp: float) -> None:
        super().__init__()
        self.fromrgb = (
            Convolution(image_channels, num_in, 1, clamp=clamp) if image_channels else None
        )
        self.conv0 = Convolution(num_in, num_in, 3, clamp=clamp)
        self.conv1 = Convolution(num_in, num_out, 3, down=2, gain=math.sqrt(0.5), clamp=clamp)
        self.skip = Convolution(num_in, num_out, 1, down=2, gain=math.sqrt(0.5), biased=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.fromrgb is None else self.fromrgb(x)
        summed: Tensor = self.skip(x) + self.conv1(self.conv0(x))
        return summed


class Epilogue(nn.Module):
    """The smallest maps (N, C, H, W) -> features (N, C)."""

    def __init__(self, channels: int, size: int, *, group_size: int, clamp: float) -> None:
        super().__init__()
        self.stddev = MinibatchStddev(group_size)
        self.conv = Convolution(channels + 1, channels, 3, clamp=clamp)
        self.fc = Dense(channels * size**2, channels, gain=GAIN)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stddev(x))
        return functional.leaky_relu(self.fc(x.flatten(1)), SLOPE)


class Head(nn.Module):
    """Features (N, F), y (N,) or None -> logits (N,).

    With classes <A f + a, m(y)> / sqrt(F), where the network m maps a class as G's maps z.
    """

    def __init__(self, num_features: int, num_classes: int, *, depth: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.out = Dense(num_features, num_features if num_classes else 1)
        widths = [num_features] * depth
        self.mapping = Mapping(0, num_classes, num_features, widths) if num_classes else None

    def forward(self, features: Tensor, y: Tensor | None = None) -> Tensor:
        x: Tensor = self.out(features)
        if self.mapping is None:
            return x.squeeze(1)
        mapped: Tensor = self.mapping(None, y)
        return (x * mapped).sum(1) / math.sqrt(mapped.shape[1])

    def widened(self, num_more: int) -> Self:
        """This head for features that have num_more columns more; their weights are fresh."""
        wide = copy.deepcopy(self)
        wide.num_features += num_more
        old = self.out.weight.detach()
        wide.out = Dense(wide.num_features, len(old))
        # The layer divides by the root of its columns.
        scale = math.sqrt(wide.num_features / self.num_features)
        wide.out.weight.data[:, : self.num_features] = scale * old
        return wide


def published_discriminator(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """NVIDIA's D by the names of this one's; the filters, which are all the same, are left out."""
    moved = {"b4.out.": "head.out.", "mapping.": "head.mapping."}
    own = {}
    for name, tensor in tensors.items():
        old = next((old for old in moved if name.startswith(old)), "")
        if not name.endswith("resample_filter"):
            own[moved.get(old, "") + name.removeprefix(old)] = tensor
    return own
