"""Noise that the originals draw anew for each image; here it is drawn once and kept.

A bundle's image depends on its seed alone. StyleGAN2 of NVIDIA keeps such a draw in its weights;
where none is kept, it is drawn as the latents of the seeds 0, 1, ... are, and never changes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganexport.importers._modulation import Layer
from ganinfer.drawing.latents import draw_latents

NOTE = "its noise, which the original draws anew for each image, is drawn once and kept"


def fixed_normal(seed: int, size: int) -> Tensor:
    """From N(0, 1): float32 (H, H)."""
    return torch.from_numpy(draw_latents([seed], size * size)).reshape(size, size)


def fixed_uniform(seed: int, size: int) -> Tensor:
    """From U(0, 1): float32 (H, H)."""
    drawn = draw_latents([seed], size * size, distribution="uniform")
    return (torch.from_numpy(drawn).reshape(size, size) + 1) / 2


class FixedNoise(Layer):
    """x (N, C, H, H) + weight times noise, the same for all channels.

    Args:
        size: H. seeds: of each call of an image, whose noises differ.
    """

    noise: Tensor

    def __init__(self, size: int, seeds: Sequence[int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1))
        self._size, self._seeds = size, list(seeds)

    def derive(self) -> None:
        drawn = torch.stack([fixed_normal(seed, self._size) for seed in self._seeds])
        self.keep("noise", self.weight * drawn)

    def forward(self, x: Tensor, call: int = 0) -> Tensor:
        return x + self.noise[call]
