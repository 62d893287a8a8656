"""StyleGAN2's and StyleGAN3's mapping network, and the layer with equalised learning rate.

    mapping     w = f(z / rms(z), e_y / rms(e_y))
    layer       gain (rate / sqrt(I) W x + rate b), W drawn from N(0, 1 / rate^2): 1710.10196, 4.1

N batch; Z latent; D length of a style; K classes. y is int64 (N,).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gantrain.distributed import all_mean
from gantrain.models._derived import Layer

GAIN = math.sqrt(2)  # keeps the variance through a leaky ReLU
MAPPING_RATE = 0.01  # learning rate of the mapping network, relative to the rest
MEAN_RATE = 0.002  # at which w_avg follows the mean of w
SLOPE = 0.2


class Dense(Layer):
    """x (N, I) -> gain (rate / sqrt(I) W x + rate b) (N, O): equalised learning rate."""

    kernel: Tensor
    offset: Tensor

    def __init__(
        self,
        num_in: int,
        num_out: int,
        *,
        rate: float = 1.0,
        gain: float = 1.0,
        start: float = 0.0,
    ) -> None:
        """rate, gain: see the class. start: of the biases."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_out, num_in) / rate)
        self.bias = nn.Parameter(torch.full((num_out,), start))
        self._rate, self._gain = rate, gain

    def derive(self) -> dict[str, Tensor]:
        scale = self._gain * self._rate
        return {
            "kernel": self.weight * (scale / math.sqrt(self.weight.shape[1])),
            "offset": self.bias * scale,
        }

    def forward(self, x: Tensor) -> Tensor:
        own = self.derived()
        return functional.linear(x, own["kernel"], own["offset"])


class Mapping(Layer):
    """z (N, Z), y (N,) or None -> w (N, D).

    In training w_avg follows the mean of w. A discriminator's has no z: Z is 0, z None, and no mean
    is kept.
    """

    w_avg: Tensor
    table: Tensor

    def __init__(
        self, z_dim: int, num_classes: int, embedding_dim: int, widths: Sequence[int]
    ) -> None:
        super().__init__()
        if num_classes:
            self.embed = Dense(num_classes, embedding_dim)
        num_in = [z_dim + (embedding_dim if num_classes else 0), *widths]
        for n, num_out in enumerate(widths):
            # The gain may stand before the leaky ReLU: it is positive.
            self.add_module(f"fc{n}", Dense(num_in[n], num_out, rate=MAPPING_RATE, gain=GAIN))
        self._depth, self.conditional, self._z_dim = len(widths), num_classes > 0, z_dim
        if z_dim:
            self.register_buffer("w_avg", torch.zeros(widths[-1]))

    def derive(self) -> dict[str, Tensor]:
        if not self.conditional:
            return {}
        # Of a one-hot vector, a column of the weights.
        own = self.embed.derived()
        return {"table": normalised(own["kernel"].T + own["offset"])}

    def forward(self, z: Tensor | None, y: Tensor | None = None) -> Tensor:
        parts = [] if z is None else [normalised(z)]
        if self.conditional:
            assert y is not None
            parts.append(functional.embedding(y, self.derived()["table"]))
        w = torch.cat(parts, dim=1)
        for n in range(self._depth):
            w = functional.leaky_relu(self.get_submodule(f"fc{n}")(w), SLOPE)
        if self.training and self._z_dim:
            with torch.no_grad():
                self.w_avg.lerp_(all_mean(w.float().mean(0)), MEAN_RATE)
        return w


def normalised(x: Tensor) -> Tensor:
    """(N, F) -> (N, F), of mean square 1."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)
