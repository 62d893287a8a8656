"""StyleGAN2's synthesis network, with skips from image to image.

Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, Analyzing and Improving the Image Quality of
StyleGAN, 1912.04958; Karras, Aittala, Hellsten, Laine, Lehtinen, Aila, Training Generative
Adversarial Networks with Limited Data, 2006.06676.

    style       s = A w_l + b, b begins as 1
    equation 1  W'_oik = s_i W_oik
    equation 3  W''_oik = W'_oik / sqrt(sum_ik W'_oik^2 + 1e-8)
    layer       x <- clamp(sqrt(2) lrelu(W'' * x + strength noise + bias)), lrelu's slope 0.2
    skips       image <- up(image) + clamp(W' * x + bias), where W' is not demodulated

A layer and the image of its block take their own styles: an image's is that of the next layer. In
training the noise is drawn anew for each image, in eval mode it is always the same.

N batch; C, H, W; L styles of length D.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantrain.models._derived import Layer
from gantrain.models._mapping import GAIN, SLOPE, Dense
from gantrain.models._modulation import Modulated


class Synthesis(nn.Module):
    """Styles (N, L, D) -> images (N, C, H, W), nominally on [-1, 1].

    Args:
        channels: of the maps, the smallest first; there are two styles for each.
        image_channels: C. w_dim: D.
        start: side of the smallest maps, which are doubled.
        clamp: of every layer, inf for none.
    """

    def __init__(
        self,
        channels: Sequence[int],
        image_channels: int,
        w_dim: int,
        *,
        start: int = 4,
        clamp: float = math.inf,
    ) -> None:
        super().__init__()
        self._sizes = [start << n for n in range(len(channels))]
        for n, size in enumerate(self._sizes):
            num_in = channels[n - 1] if n else 0
            block = Block(num_in, channels[n], image_channels, w_dim, size, clamp=clamp)
            self.add_module(f"b{size}", block)

    @property
    def num_styles(self) -> int:
        """L: of each layer, and of the last image."""
        return 2 * len(self._sizes)

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

    def __init__(
        self,
        num_in: int,
        num_out: int,
        image_channels: int,
        w_dim: int,
        size: int,
        *,
        clamp: float,
    ) -> None:
        super().__init__()
        if num_in:
            self.conv0 = Convolution(num_in, num_out, w_dim, size, up=2, clamp=clamp)
        else:
            self.const = nn.Parameter(torch.randn(num_out, size, size))
        self.conv1 = Convolution(num_out, num_out, w_dim, size, up=1, clamp=clamp)
        self.torgb = ToRGB(num_out, image_channels, w_dim, clamp=clamp)
        self.register_buffer("resample_filter", binomial())

    def derive(self) -> dict[str, Tensor]:
        return {"taps": tiled(self.resample_filter, self.torgb.weight.shape[0])}

    def forward(self, x: Tensor | None, image: Tensor | None, w: Tensor) -> tuple[Tensor, Tensor]:
        x = self.const[None] if x is None else self.conv0(x, w[:, 0])
        x = self.conv1(x, w[:, -2])
        rgb: Tensor = self.torgb(x, w[:, -1])
        return x, rgb if image is None else upsampled(image, self.derived()["taps"]) + rgb


def binomial() -> Tensor:
    """The filter that maps and images are resampled with: (4, 4), of sum 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return taps.outer(taps)


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

    def __init__(
        self, num_in: int, num_out: int, w_dim: int, size: int, *, up: int, clamp: float
    ) -> None:
        super().__init__()
        self._up, self._clamp = up, clamp
        self.affine = Dense(w_dim, num_in, start=1.0)
        self.weight = nn.Parameter(torch.randn(num_out, num_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(num_out))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.register_buffer("resample_filter", binomial())

    def derive(self) -> dict[str, Tensor]:
        own = super().derive()
        # The gain may stand before the leaky ReLU: it is positive.
        kernel = own["kernel"] if self._up == 1 else own["kernel"].transpose(0, 1)
        own["kernel"] = GAIN * kernel
        own["noise"] = GAIN * self.noise_strength * self.noise_const
        own["offset"] = GAIN * self.bias[:, None, None]
        if self._up == 2:
            # A filter convolves; conv2d correlates.
            own["taps"] = tiled(self.resample_filter.flip(0, 1), self.weight.shape[0])
        return own

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        own = self.derived()
        scale_in, scale_out = self.modulation(self.affine(w), own)
        x = x * scale_in
        if self._up == 2:
            x = functional.conv_transpose2d(x, own["kernel"], stride=2)
            x = functional.conv2d(x, own["taps"], padding=1, groups=len(own["taps"]))
        else:
            x = functional.conv2d(x, own["kernel"], padding=1)
        x = x * scale_out + self._noise(x, own) + own["offset"]
        return clamped(functional.leaky_relu(x, SLOPE), self._clamp)

    def _noise(self, x: Tensor, own: dict[str, Tensor]) -> Tensor:
        """One value for all channels of a pixel: (N, 1, H, W), or (H, W) for all images."""
        if not self.training:
            return own["noise"]
        return GAIN * self.noise_strength * torch.randn_like(x[:, :1])


class ToRGB(Layer):
    """x (N, I, H, W), w (N, D) -> image (N, C, H, W): modulated, one pixel wide."""

    def __init__(self, num_in: int, num_out: int, w_dim: int, *, clamp: float) -> None:
        super().__init__()
        self._clamp = clamp
        self.affine = Dense(w_dim, num_in, start=1.0)
        self.weight = nn.Parameter(torch.randn(num_out, num_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_out))

    def derive(self) -> dict[str, Tensor]:
        return {"kernel": self.weight / math.sqrt(self.weight.shape[1])}

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = x * self.affine(w)[:, :, None, None]
        return clamped(functional.conv2d(x, self.derived()["kernel"], self.bias), self._clamp)


def clamped(x: Tensor, limit: float) -> Tensor:
    """Values on [-limit, limit]."""
    return x if math.isinf(limit) else x.clamp(-limit, limit)
