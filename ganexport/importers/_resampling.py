"""How maps are doubled and blurred. N batch; C, H, W."""

import torch
from torch import Tensor
from torch.nn import functional

from gantrain.models._derived import Layer


def double(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return functional.interpolate(x, scale_factor=2.0)


def double_bilinearly(x: Tensor) -> Tensor:
    """Bilinear upsampling, corners not aligned: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Blur(Layer):
    """Each channel by the outer product of its taps, of sum 1; the border is a mirror.

    (N, C, H, W) -> (N, C, H, W).
    """

    f: Tensor
    taps: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._channels = channels
        self.register_buffer("f", torch.empty(3))

    def derive(self) -> dict[str, Tensor]:
        taps = self.f.outer(self.f)
        return {"taps": (taps / taps.abs().sum()).expand(self._channels, 1, -1, -1)}

    def forward(self, x: Tensor) -> Tensor:
        mirrored = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(mirrored, self.taps, groups=self._channels)
