"""StyleGAN2's generator in plain operations.

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, Analyzing and Improving the Image Quality of
StyleGAN, 1912.04958; Karras, Aittala, Hellsten, Laine, Lehtinen, Aila, Training Generative
Adversarial Networks with Limited Data, 2006.06676.

    mapping     styles v_l, see ganexport.importers._mapping
    style       s = A v_l + b
    equation 1  W'_oik = s_i W_oik
    equation 3  W''_oik = W'_oik / sqrt(sum_ik W'_oik^2 + 1e-8)
    layer       x <- clamp(sqrt(2) lrelu(W'' * x + strength noise + bias)), lrelu's slope 0.2
    skips       image <- up(image) + clamp(W' * x + bias), where W' is not demodulated

A layer and the image of its block take their own styles: an image's is that of the next layer.

N batch; C, H, W; L styles of length D; K classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers._mapping import GAIN, SLOPE, Dense, Mapping, Styled
from ganexport.importers._modulation import Layer, Modulated


@dataclass(frozen=True)
class Plan:
    """What the shapes say of a generator.

    Attributes:
        z_dim: Z. num_classes: K, 0 if there are none. embedding_dim: of a class, 0 if K is 0.
        widths: of what the layers of the mapping network give; the last is that of w.
        channels: of the maps of 4x4, 8x8, ... pixels. image_channels: of the image.
    """

    z_dim: int
    num_classes: int
    embedding_dim: int
    widths: list[int]
    channels: list[int]
    image_channels: int

    @property
    def num_styles(self) -> int:
        """L: of each layer, and of the last image."""
        return 2 * len(self.channels)


class Generator(Styled):
    """z (N, Z), y (N,) if there are classes, ... -> images (N, C, H, W), nominally on [-1, 1].

    Args:
        plan: see there.
        psi, cutoff: see `Styled`.
        clamp: of every layer, inf for none.
    """

    def __init__(
        self, plan: Plan, *, psi: float | None, clamp: float, cutoff: int | None = None
    ) -> None:
        mapping = Mapping(plan.z_dim, plan.num_classes, plan.embedding_dim, plan.widths)
        super().__init__(mapping, plan.num_styles, psi=psi, cutoff=cutoff)
        self.synthesis = Synthesis(plan, clamp=clamp)


class Synthesis(nn.Module):
    """Styles (N, L, D) -> images (N, C, H, W)."""

    def __init__(self, plan: Plan, *, clamp: float) -> None:
        super().__init__()
        self._sizes = [4 << n for n in range(len(plan.channels))]
        for n, size in enumerate(self._sizes):
            num_in = plan.channels[n - 1] if n else 0
            self.add_module(f"b{size}", Block(num_in, plan.channels[n], plan, size, clamp=clamp))

    def forward(self, w: Tensor) -> Tensor:
        x: Tensor | None = None
        image: Tensor | None = None
        for n, size in enumerate(self._sizes):
            own = w[:, :2] if n == 0 else w[:, 2 * n - 1 : 2 * n + 2]
            x, image = self.get_submodule(f"b{size}")(x, image, own)
        assert image is not None
        return image


class Block(Layer):
    """Maps and image of half the size -> maps (N, O, H, W) and image; the first has neither.

    w (N, 3, D) are the styles of its layers and of its image; of the first block (N, 2, D).
    """

    resample_filter: Tensor
    taps: Tensor

    def __init__(self, num_in: int, num_out: int, plan: Plan, size: int, *, clamp: float) -> None:
        super().__init__()
        w_dim = plan.widths[-1]
        if num_in:
            self.conv0 = Convolution(num_in, num_out, w_dim, size, up=2, clamp=clamp)
        else:
            self.const = nn.Parameter(torch.empty(num_out, size, size))
        self.conv1 = Convolution(num_out, num_out, w_dim, size, up=1, clamp=clamp)
        self.torgb = ToRGB(num_out, plan.image_channels, w_dim, clamp=clamp)
        self.register_buffer("resample_filter", torch.empty(4, 4))

    def derive(self) -> None:
        self.keep("taps", tiled(self.resample_filter, self.torgb.weight.shape[0]))

    def forward(self, x: Tensor | None, image: Tensor | None, w: Tensor) -> tuple[Tensor, Tensor]:
        x = self.const[None] if x is None else self.conv0(x, w[:, 0])
        x = self.conv1(x, w[:, -2])
        rgb: Tensor = self.torgb(x, w[:, -1])
        return x, rgb if image is None else upsampled(image, self.taps) + rgb


def upsampled(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W): zeros between the pixels, then the filter, times 4."""
    return functional.conv_transpose2d(x, taps, stride=2, padding=1, groups=x.shape[1])


def tiled(filter_: Tensor, channels: int) -> Tensor:
    """A filter of sum 1 (4, 4) -> taps (C, 1, 4, 4) that make up for the zeros between pixels."""
    return (4 * filter_).expand(channels, 1, -1, -1)


class Convolution(Modulated):
    """x (N, I, H/up, W/up), w (N, D) -> (N, O, H, W): modulated, demodulated, with noise."""

    resample_filter: Tensor
    noise_const: Tensor
    noise: Tensor
    offset: Tensor
    taps: Tensor

    def __init__(
        self, num_in: int, num_out: int, w_dim: int, size: int, *, up: int, clamp: float
    ) -> None:
        super().__init__()
        self._up, self._clamp = up, clamp
        self.affine = Dense(w_dim, num_in)
        self.weight = nn.Parameter(torch.empty(num_out, num_in, 3, 3))
        self.bias = nn.Parameter(torch.empty(num_out))
        self.noise_strength = nn.Parameter(torch.empty(()))
        self.register_buffer("noise_const", torch.empty(size, size))
        self.register_buffer("resample_filter", torch.empty(4, 4))

    def derive(self) -> None:
        super().derive()
        # The gain may stand before the leaky ReLU: it is positive.
        kernel = self.kernel if self._up == 1 else self.kernel.transpose(0, 1)
        self.keep("kernel", GAIN * kernel)
        self.keep("noise", GAIN * self.noise_strength * self.noise_const)
        self.keep("offset", GAIN * self.bias[:, None, None])
        if self._up == 2:
            # A filter convolves; conv2d correlates.
            self.keep("taps", tiled(self.resample_filter.flip(0, 1), self.weight.shape[0]))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        scale_in, scale_out = self.modulation(self.affine(w))
        x = x * scale_in
        if self._up == 2:
            x = functional.conv_transpose2d(x, self.kernel, stride=2)
            x = functional.conv2d(x, self.taps, padding=1, groups=self.taps.shape[0])
        else:
            x = functional.conv2d(x, self.kernel, padding=1)
        x = x * scale_out + self.noise + self.offset
        return clamped(functional.leaky_relu(x, SLOPE), self._clamp)


class ToRGB(Layer):
    """x (N, I, H, W), w (N, D) -> image (N, C, H, W): modulated, one pixel wide."""

    kernel: Tensor

    def __init__(self, num_in: int, num_out: int, w_dim: int, *, clamp: float) -> None:
        super().__init__()
        self._clamp = clamp
        self.affine = Dense(w_dim, num_in)
        self.weight = nn.Parameter(torch.empty(num_out, num_in, 1, 1))
        self.bias = nn.Parameter(torch.empty(num_out))

    def derive(self) -> None:
        self.keep("kernel", self.weight / math.sqrt(self.weight.shape[1]))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = x * self.affine(w)[:, :, None, None]
        return clamped(functional.conv2d(x, self.kernel, self.bias), self._clamp)


def clamped(x: Tensor, limit: float) -> Tensor:
    """Values on [-limit, limit]."""
    return x if math.isinf(limit) else x.clamp(-limit, limit)
