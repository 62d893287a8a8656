"""StyleGAN3's generator in plain operations; its mapping network is StyleGAN2's.

Karras, Aittala, Laine, Harkonen, Hellsten, Lehtinen, Aila, Alias-Free Generative Adversarial
Networks, 2106.12423.

    input       (c, s, u, v) = A w + b, divided by |(c, s)|; rotates by (c, s), then moves by (u, v)
                features  a_k sin(2 pi (f_k . x + p_k)) of pixels x, then a linear layer
    layer       s = A v + b, of root mean square 1, as each output's weights are
                x <- W'' * x / sqrt(magnitude), W'' as in StyleGAN2, with a border of zeros
                x <- down(clamp(sqrt(2) lrelu(up(x + bias)))), by Kaiser or jinc filters
    image       0.25 clamp(W' * x / sqrt(magnitude) + bias), where W' is not demodulated

N batch; C, H, W; L styles of length D. All maps are square.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers import _stylegan2
from ganexport.subjects.styled import Styled
from gantrain.models._derived import Layer
from gantrain.models._mapping import GAIN, SLOPE, Dense, Mapping
from gantrain.models._modulation import LEAST_SCALE
from gantrain.models._synthesis import clamped


@dataclass(frozen=True)
class LayerPlan:
    """A layer of the synthesis.

    Attributes:
        name: as published, such as "L3_52_512".
        num_in, num_out: channels. kernel: pixels of the convolution's side.
        up, down: factors of the filters. up_taps, down_taps: their shapes, () for no filter.
        before, after: pixels of padding of each axis of what is upsampled; crops if negative.
        to_image: it is the last one, neither demodulated nor activated.
        clamp: of its values, inf for none.
    """

    name: str
    num_in: int
    num_out: int
    kernel: int
    up: int
    down: int
    up_taps: tuple[int, ...]
    down_taps: tuple[int, ...]
    before: int
    after: int
    to_image: bool
    clamp: float

    def size(self, size: int) -> int:
        """H of what it gives for maps of H pixels."""
        wide = (size + self.kernel - 1) * self.up + self.before + self.after
        wide -= sum(max(taps[:1], default=1) - 1 for taps in (self.up_taps, self.down_taps))
        return -(-wide // self.down)


@dataclass(frozen=True)
class Plan:
    """What a file says of a generator.

    Attributes:
        mapping: of StyleGAN2's mapping network.
        size: H of the features. rate: pixels to a unit of length. bandwidth: cycles to one.
        layers: of the synthesis. scale: of the image.
    """

    mapping: _stylegan2.Plan
    size: int
    rate: float
    bandwidth: float
    layers: list[LayerPlan]
    scale: float

    @property
    def num_styles(self) -> int:
        """L: of the input, and of each layer."""
        return len(self.layers) + 1


class Generator(Styled):
    """z (N, Z), y (N,) if there are classes, ... -> images (N, C, H, W), nominally on [-1, 1].

    Args:
        plan: see there.
        psi, cutoff: see `Styled`.
    """

    def __init__(self, plan: Plan, *, psi: float | None, cutoff: int | None) -> None:
        own = plan.mapping
        mapping = Mapping(own.z_dim, own.num_classes, own.embedding_dim, own.widths)
        super().__init__(mapping, Synthesis(plan), plan.num_styles, psi=psi, cutoff=cutoff)


class Synthesis(nn.Module):
    """Styles (N, L, D), of the input and of each layer -> images (N, C, H, W)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._names = [layer.name for layer in plan.layers]
        self._scale = plan.scale
        self.input = Input(plan)
        for layer in plan.layers:
            self.add_module(layer.name, Filtered(layer, plan.mapping.widths[-1]))

    def forward(self, w: Tensor) -> Tensor:
        x: Tensor = self.input(w[:, 0])
        for n, name in enumerate(self._names):
            x = self.get_submodule(name)(x, w[:, n + 1])
        return x * self._scale


class Input(Layer):
    """w (N, D) -> features (N, C, H, H), turned and moved as w says."""

    transform: Tensor
    freqs: Tensor
    phases: Tensor
    kernel: Tensor
    places: Tensor

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        channels = plan.layers[0].num_in
        self._size, self._rate, self._bandwidth = plan.size, plan.rate, plan.bandwidth
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.affine = Dense(plan.mapping.widths[-1], 4)
        self.register_buffer("transform", torch.empty(3, 3))
        self.register_buffer("freqs", torch.empty(channels, 2))
        self.register_buffer("phases", torch.empty(channels))

    def derive(self) -> dict[str, Tensor]:
        middles = torch.arange(self._size, dtype=torch.float64) + 0.5 - self._size / 2
        return {
            "kernel": (self.weight / math.sqrt(len(self.weight)))[:, :, None, None],
            "places": (middles / self._rate).float().to(self.weight.device),
        }

    def forward(self, w: Tensor) -> Tensor:
        moves = self.affine(w)
        moves = moves / moves[:, :2].norm(dim=1, keepdim=True)
        cos, sin, right, down = (moves[:, n] for n in range(4))
        rows = [cos, -sin, sin * down - cos * right, sin, cos, -sin * right - cos * down]
        turned = torch.stack(rows, dim=1).reshape(-1, 2, 3) @ self.transform
        freqs = self.freqs @ turned[:, :, :2]  # (N, C, 2)
        phases = self.phases + (self.freqs @ turned[:, :, 2:]).squeeze(2)
        # What the transform moves beyond the band fades out.
        beyond = (freqs.norm(dim=2) - self._bandwidth) / (self._rate / 2 - self._bandwidth)
        across = freqs[:, :, :1, None] * self.places
        along = freqs[:, :, 1:, None] * self.places[:, None]
        x = torch.sin(2 * math.pi * (across + along + phases[:, :, None, None]))
        x = x * (1 - beyond).clamp(0, 1)[:, :, None, None]
        return functional.conv2d(x, self.kernel)


class Filtered(Layer):
    """x (N, I, H, H), w (N, D) -> (N, O, H', H'): modulated, activated between two filters."""

    magnitude_ema: Tensor
    up_filter: Tensor
    down_filter: Tensor
    kernel: Tensor
    squares: Tensor
    gain: Tensor
    taps_up: Tensor
    taps_down: Tensor

    def __init__(self, plan: LayerPlan, w_dim: int) -> None:
        super().__init__()
        self._plan = plan
        self.affine = Dense(w_dim, plan.num_in)
        self.weight = nn.Parameter(torch.empty(plan.num_out, plan.num_in, plan.kernel, plan.kernel))
        self.bias = nn.Parameter(torch.empty(plan.num_out))
        self.register_buffer("magnitude_ema", torch.empty(()))
        if plan.up_taps:
            self.register_buffer("up_filter", torch.empty(plan.up_taps))
        if plan.down_taps:
            self.register_buffer("down_filter", torch.empty(plan.down_taps))

    def derive(self) -> dict[str, Tensor]:
        fan_in = self.weight[0].numel()
        # Demodulation takes out any scale of the weights and of s. Of length 1 and of at most 1,
        # they let half precision neither overflow nor lose the sum of squares.
        length = self.weight.flatten(1).norm(dim=1)[:, None, None, None]
        kernel = self.weight / (math.sqrt(fan_in) if self._plan.to_image else length)
        own = {"kernel": kernel, "squares": kernel.square().sum((2, 3)).T}
        own["gain"] = self.magnitude_ema.rsqrt()
        if self._plan.up_taps:
            spread = self._plan.up ** len(self._plan.up_taps)  # for the zeros between
            own["taps_up"] = spread * _tiled(self.up_filter, self._plan.num_out)
        if self._plan.down_taps:
            # A filter convolves; conv2d correlates.
            turned = self.down_filter.flip(tuple(range(self.down_filter.ndim)))
            own["taps_down"] = _tiled(turned, self._plan.num_out)
        return own

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        plan = self._plan
        x = self._convolved(x, self.affine(w)) + self.bias[:, None, None]
        if plan.up_taps:
            x = _upsampled(x, self.taps_up, plan)
        if not plan.to_image:
            x = functional.leaky_relu(x, SLOPE) * GAIN
        x = clamped(x, plan.clamp)
        return _downsampled(x, self.taps_down, plan.down) if plan.down_taps else x

    def _convolved(self, x: Tensor, style: Tensor) -> Tensor:
        border = self._plan.kernel - 1
        if self._plan.to_image:
            x = x * (style * self.gain)[:, :, None, None]
            return functional.conv2d(x, self.kernel, padding=border)
        style = style / style.abs().amax(dim=1, keepdim=True).clamp(min=LEAST_SCALE)
        power = style.square() @ self.squares + 1e-12
        x = functional.conv2d(
            x * (style * self.gain)[:, :, None, None], self.kernel, padding=border
        )
        return x * torch.rsqrt(power)[:, :, None, None]


def _tiled(filter_: Tensor, channels: int) -> Tensor:
    """(T,) or (T, T) -> (C, 1, 1, T) or (C, 1, T, T)."""
    square = filter_ if filter_.ndim == 2 else filter_[None]
    return square.expand(channels, 1, -1, -1)


def _upsampled(x: Tensor, taps: Tensor, plan: LayerPlan) -> Tensor:
    """(N, C, H, H) -> (N, C, H', H'): zeros between the pixels, padding, then the filter."""
    size, length = plan.up * x.shape[-1], taps.shape[-1]
    # The transposed convolution gives all places where the filter touches a pixel; of them those
    # are kept that the padding asks for, or zeros beside them.
    first, last = length - 1 - plan.before, size + plan.after
    whole = size - plan.up + length
    crop = max(0, min(first, whole - last))
    kernels = [taps] if taps.shape[-2] == length else [taps, taps.transpose(2, 3)]
    for kernel in kernels:
        axes = tuple(n > 1 for n in kernel.shape[2:])
        x = functional.conv_transpose2d(
            x,
            kernel,
            stride=tuple(plan.up if axis else 1 for axis in axes),
            padding=tuple(crop if axis else 0 for axis in axes),
            groups=x.shape[1],
        )
    left, right = first - crop, whole - crop - last
    if left < 0 or right < 0:
        x = functional.pad(x, [max(0, -left), max(0, -right)] * 2)
        left, right = max(0, left), max(0, right)
    end = x.shape[-1] - right
    return x[:, :, left:end, left:end]


def _downsampled(x: Tensor, taps: Tensor, down: int) -> Tensor:
    """(N, C, H, H) -> (N, C, H', H'): the filter, then every `down`-th pixel."""
    channels = x.shape[1]
    if taps.shape[-2] == taps.shape[-1]:
        return functional.conv2d(x, taps, stride=down, groups=channels)
    x = functional.conv2d(x, taps, stride=(1, down), groups=channels)
    return functional.conv2d(x, taps.transpose(2, 3), stride=(down, 1), groups=channels)
