"""Noise that the originals draw anew for each image; here it is drawn once and kept.

A bundle's image depends on its seed alone. StyleGAN2 of NVIDIA keeps such a draw in its weights;
where none is kept, it is drawn as the latents of the seeds 0, 1, ... are, and never changes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganexport.subjects.noise import NORMAL, Draw, drawn
from gantrain.models._derived import Layer

NOTE = "its noise, which the original draws anew for each image, is drawn once and kept"


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

    def derive(self) -> dict[str, Tensor]:
        draw = Draw(NORMAL, (self._size, self._size))
        return {"noise": self.weight * torch.stack([drawn(draw, seed) for seed in self._seeds])}

    def forward(self, x: Tensor, call: int = 0) -> Tensor:
        return x + self.noise[call]
