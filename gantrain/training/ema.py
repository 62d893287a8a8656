"""Exponential moving average of a generator: the network that is measured and shipped."""

import copy

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from gantrain.models._base import GeneratorModule


class Ema:
    """Averages parameters with a half-life counted in images; copies buffers.

    theta_ema <- decay theta_ema + (1 - decay) theta, decay = 0.5 ** (images / half_life). Early on
    the half-life is a share of the images seen, so that the start is soon forgotten.
    """

    def __init__(
        self, network: GeneratorModule, *, half_life_kimg: float, ramp_up: float = 0.05
    ) -> None:
        """Start from a copy of the network; half_life_kimg = 0 follows it without averaging."""
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self._half_life_images, self._ramp_up = 1000 * half_life_kimg, ramp_up

    @record_function("average")
    @torch.no_grad()
    def update(self, network: nn.Module, *, batch_size: int, images_seen: int) -> None:
        """Take in the network after one more step."""
        half_life = min(self._half_life_images, self._ramp_up * images_seen)
        decay = 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0
        averages: list[Tensor] = list(self.network.parameters())
        values: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(averages, values, 1 - decay)
        for average, value in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(value)
