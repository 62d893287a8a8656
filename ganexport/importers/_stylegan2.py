"""StyleGAN2's generator in plain operations.

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, Analyzing and Improving the Image Quality of
StyleGAN, 1912.04958; Karras, Aittala, Hellsten, Laine, Lehtinen, Aila, Training Generative
Adversarial Networks with Limited Data, 2006.06676.

    mapping     w = f(z / rms(z), e_y / rms(e_y));  v = w_avg + psi (w - w_avg), for all layers
    style       s = A v + b
    equation 1  W'_oik = s_i W_oik
    equation 3  W''_oik = W'_oik / sqrt(sum_ik W'_oik^2 + 1e-8)
    layer       x <- clamp(sqrt(2) lrelu(W'' * x + strength noise + bias)), lrelu's slope 0.2
    skips       image <- up(image) + clamp(W' * x + bias), where W' is not demodulated

N batch; C, H, W; Z latent; W length of w; K classes. y is int64 (N,).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers._modulation import Layer, Modulated

GAIN = math.sqrt(2)  # keeps the variance through a leaky ReLU
MAPPING_RATE = 0.01  # learning rate of the mapping network, relative to the rest
SLOPE = 0.2


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


class Generator(nn.Module):
    """z (N, Z), y (N,) if there are classes, psi (N,) unless it is fixed -> images (N, C, H, W).

    They lie nominally on [-1, 1].
    """

    def __init__(self, plan: Plan, *, psi: float | None, clamp: float) -> None:
        super().__init__()
        self._psi = psi
        self.mapping = Mapping(plan)
        self.synthesis = Synthesis(plan, clamp=clamp)

    def forward(self, z: Tensor, *y_and_psi: Tensor) -> Tensor:
        y, psi = labels_and_psi(y_and_psi, self._psi)
        w = self.mapping(z, *y)
        w_avg = self.mapping.w_avg
        images: Tensor = self.synthesis(w_avg + psi * (w - w_avg))
        return images


def labels_and_psi(
    given: tuple[Tensor, ...], fixed: float | None
) -> tuple[tuple[Tensor, ...], Tensor | float]:
    """What follows z: y (N,), if there are classes, and psi (N,) unless it is fixed.

    Returns:
        y, or nothing, and psi (N, 1), or the number.
    """
    if fixed is not None:
        return given, fixed
    *y, psi = given
    return tuple(y), psi[:, None]


class Dense(Layer):
    """x (N, I) -> gain (rate / sqrt(I) W x + rate b) (N, O): equalised learning rate."""

    kernel: Tensor
    offset: Tensor

    def __init__(self, num_in: int, num_out: int, *, rate: float = 1.0, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in))
        self.bias = nn.Parameter(torch.empty(num_out))
        self._rate, self._gain = rate, gain

    def derive(self) -> None:
        scale = self._gain * self._rate
        self.keep("kernel", self.weight * (scale / math.sqrt(self.weight.shape[1])))
        self.keep("offset", self.bias * scale)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.kernel, self.offset)


class Mapping(Layer):
    """z (N, Z), y (N,) or None -> w (N, W)."""

    w_avg: Tensor
    table: Tensor

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        if plan.num_classes:
            self.embed = Dense(plan.num_classes, plan.embedding_dim)
        num_in = [plan.z_dim + plan.embedding_dim, *plan.widths]
        for n, num_out in enumerate(plan.widths):
            # The gain may stand before the leaky ReLU: it is positive.
            self.add_module(f"fc{n}", Dense(num_in[n], num_out, rate=MAPPING_RATE, gain=GAIN))
        self._depth, self._conditional = len(plan.widths), plan.num_classes > 0
        self.register_buffer("w_avg", torch.empty(plan.widths[-1]))

    def derive(self) -> None:
        if self._conditional:
            # Of a one-hot vector, a column of the weights.
            self.keep("table", normalised(self.embed.kernel.T + self.embed.offset))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = normalised(z)
        if self._conditional:
            assert y is not None
            x = torch.cat([x, functional.embedding(y, self.table)], dim=1)
        for n in range(self._depth):
            x = functional.leaky_relu(self.get_submodule(f"fc{n}")(x), SLOPE)
        w: Tensor = x
        return w


def normalised(x: Tensor) -> Tensor:
    """(N, F) -> (N, F), of mean square 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class Synthesis(nn.Module):
    """w (N, W) -> images (N, C, H, W)."""

    def __init__(self, plan: Plan, *, clamp: float) -> None:
        super().__init__()
        self._sizes = [4 << n for n in range(len(plan.channels))]
        for n, size in enumerate(self._sizes):
            num_in = plan.channels[n - 1] if n else 0
            self.add_module(f"b{size}", Block(num_in, plan.channels[n], plan, size, clamp=clamp))

    def forward(self, w: Tensor) -> Tensor:
        x: Tensor | None = None
        image: Tensor | None = None
        for size in self._sizes:
            x, image = self.get_submodule(f"b{size}")(x, image, w)
        assert image is not None
        return image


class Block(Layer):
    """Maps and image of half the size, w -> maps (N, O, H, W) and image; the first has neither."""

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
        x = self.const[None] if x is None else self.conv0(x, w)
        x = self.conv1(x, w)
        rgb: Tensor = self.torgb(x, w)
        return x, rgb if image is None else upsampled(image, self.taps) + rgb


def upsampled(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W): zeros between the pixels, then the filter, times 4."""
    return functional.conv_transpose2d(x, taps, stride=2, padding=1, groups=x.shape[1])


def tiled(filter_: Tensor, channels: int) -> Tensor:
    """A filter of sum 1 (4, 4) -> taps (C, 1, 4, 4) that make up for the zeros between pixels."""
    return (4 * filter_).expand(channels, 1, -1, -1)


class Convolution(Modulated):
    """x (N, I, H/up, W/up), w (N, W) -> (N, O, H, W): modulated, demodulated, with noise."""

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
    """x (N, I, H, W), w (N, W) -> image (N, C, H, W): modulated, one pixel wide."""

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
