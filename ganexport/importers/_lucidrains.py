"""What the importers of lucidrains' GANs share: norms, attention, and their checkpoints.

N batch; C, H, W; L = H W places; h heads of d channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganinfer.errors import ExportError

HEADS = 8  # of every attention


def averaged(state: dict[str, Tensor], names: tuple[str, ...], what: str) -> dict[str, Tensor]:
    """Of a whole GAN's state, the parts that make images, averaged over training.

    Args:
        state: of the checkpoint's "GAN": parts of these names, and "E" behind them, averaged.
        names: of the parts: ("S", "G").
        what: is expected, for messages.

    Returns:
        Their tensors under the names without "E". Other parts are left out.

    Raises:
        ExportError: a part is missing.
    """
    found: dict[str, Tensor] = {}
    for part in names:
        own = {n: v for n, v in state.items() if n.startswith(f"{part}E.")}
        if not own:
            parts = sorted({name.split(".")[0] for name in state})
            raise ExportError(
                f"{what}: no {part}E among its {len(parts)} parts {parts[:8]}; give the checkpoint"
                " model_N.pt as it was saved, without --weights-key"
            )
        found |= {part + name.removeprefix(f"{part}E"): value for name, value in own.items()}
    return found


class ChannelNorm(nn.Module):
    """Each place's channels have mean b and deviation g: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.empty(1, channels, 1, 1))
        self.b = nn.Parameter(torch.empty(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        return centred * torch.rsqrt(variance + 1e-5) * self.g + self.b


class PreNorm(nn.Module):
    """fn(norm(x))."""

    def __init__(self, channels: int, fn: nn.Module) -> None:
        super().__init__()
        self.fn, self.norm = fn, ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(self.norm(x))
        return out


class DepthwiseConv(nn.Module):
    """Each channel's own 3x3 convolution, then a 1x1 convolution of all: (N, C, H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        own = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.net = nn.Sequential(own, nn.Conv2d(in_channels, out_channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def attend_linearly(query: Tensor, key_and_value: Tensor) -> Tensor:
    """Efficient attention (1812.01243), whose price grows with L and not with L squared.

    softmax_d(q)^T (softmax_L(k) v^T) / sqrt(d), then GELU.

    (N, h d, H, W), (N, 2 h d, H, W) -> (N, h d, H, W).
    """
    _, channels, height, width = query.shape
    depth = channels // HEADS
    key, value = key_and_value.chunk(2, dim=1)
    q, k, v = (x.reshape(-1, HEADS, depth, height * width) for x in (query, key, value))
    context = torch.softmax(k, dim=3) @ v.transpose(2, 3)  # (N, h, d, d)
    out = context.transpose(2, 3) @ (torch.softmax(q, dim=2) * depth**-0.5)  # (N, h, d, L)
    return functional.gelu(out.reshape(-1, channels, height, width))
