"""StyleGAN2's and StyleGAN3's mapping network, and what becomes of its w before the synthesis.

    mapping     w = f(z / rms(z), e_y / rms(e_y))
    styles      v_l = w_avg + psi (w - w_avg) for the first places l, w for those from a cutoff on;
                or styles that are given, in their place

N batch; Z latent; L styles of length D; K classes. y is int64 (N,).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers._modulation import Layer

GAIN = math.sqrt(2)  # keeps the variance through a leaky ReLU
MAPPING_RATE = 0.01  # learning rate of the mapping network, relative to the rest
SLOPE = 0.2


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
    """z (N, Z), y (N,) or None -> w (N, D)."""

    w_avg: Tensor
    table: Tensor

    def __init__(
        self, z_dim: int, num_classes: int, embedding_dim: int, widths: Sequence[int]
    ) -> None:
        super().__init__()
        if num_classes:
            self.embed = Dense(num_classes, embedding_dim)
        num_in = [z_dim + embedding_dim, *widths]
        for n, num_out in enumerate(widths):
            # The gain may stand before the leaky ReLU: it is positive.
            self.add_module(f"fc{n}", Dense(num_in[n], num_out, rate=MAPPING_RATE, gain=GAIN))
        self._depth, self.conditional = len(widths), num_classes > 0
        self.register_buffer("w_avg", torch.empty(widths[-1]))

    def derive(self) -> None:
        if self.conditional:
            # Of a one-hot vector, a column of the weights.
            self.keep("table", normalised(self.embed.kernel.T + self.embed.offset))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = normalised(z)
        if self.conditional:
            assert y is not None
            x = torch.cat([x, functional.embedding(y, self.table)], dim=1)
        for n in range(self._depth):
            x = functional.leaky_relu(self.get_submodule(f"fc{n}")(x), SLOPE)
        w: Tensor = x
        return w


def normalised(x: Tensor) -> Tensor:
    """(N, F) -> (N, F), of mean square 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class Styled(nn.Module):
    """z (N, Z), y (N,) if there are classes, psi (N,) unless it is fixed -> images (N, C, H, W).

    Two more may follow: styles w (N, L, D), and takes_w (N,), 1 where an image is made of them as
    they are, 0 where z is mapped.

    Args:
        mapping: the network.
        num_styles: L.
        psi: fixed, or None.
        cutoff: how many styles are drawn to the mean, from the first on; None for all.
    """

    synthesis: nn.Module

    def __init__(
        self, mapping: Mapping, num_styles: int, *, psi: float | None, cutoff: int | None
    ) -> None:
        super().__init__()
        self.mapping = mapping
        self._num_styles, self._psi, self._cutoff = num_styles, psi, cutoff

    def forward(self, z: Tensor, *given: Tensor) -> Tensor:
        rest = list(given)
        y = rest.pop(0) if self.mapping.conditional else None
        psi = rest.pop(0)[:, None] if self._psi is None else self._psi
        v = self.styles(self.mapping(z, y), psi)
        if rest:
            w, takes_w = rest
            v = torch.where(takes_w[:, None, None] > 0.5, w, v)
        images: Tensor = self.synthesis(v)
        return images

    def styles(self, w: Tensor, psi: Tensor | float) -> Tensor:
        """Of w (N, D) and psi (N, 1), or a number: styles (N, L, D)."""
        drawn = self.mapping.w_avg + psi * (w - self.mapping.w_avg)
        count = self._num_styles if self._cutoff is None else self._cutoff
        parts = [drawn[:, None].expand(-1, count, -1)]
        if count < self._num_styles:
            parts.append(w[:, None].expand(-1, self._num_styles - count, -1))
        return torch.cat(parts, dim=1)
