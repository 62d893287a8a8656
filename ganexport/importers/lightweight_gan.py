"""Generators of lucidrains' lightweight-gan, from its checkpoint `model_N.pt`.

Liu, Zhu, Song, Elgammal, Towards Faster and Stabilized GAN Training for High-fidelity Few-shot
Image Synthesis, 2101.04775, with lucidrains' changes. Skips go from maps of size s to those of 8 s:

    up          x <- glu(norm(conv(blur(shuffle(silu(conv(x))))) + weight noise))
    skip        x_8s <- x_8s sigmoid(conv(lrelu(conv(pooled x_s)))); pooled by attention or cosines

The averaged generator, GE, is taken. Its noise is drawn once here and kept, where the original
draws it for each image. Of its options, attention, `freq_chan_attn`, grey images and widths are
read off the weights. Versions from 0.21 on are read; before 1.0 they doubled maps by nearest
neighbours.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers._fixed_noise import NOTE, FixedNoise
from ganexport.importers._lucidrains import (
    HEADS,
    DepthwiseConv,
    PreNorm,
    attend_linearly,
    averaged,
)
from ganexport.importers._published import Published
from ganexport.importers._resampling import Blur
from ganexport.subjects.spec import Spec
from ganinfer.errors import ExportError

EXPECTED = "lightweight_gan: expected a checkpoint of lucidrains' lightweight-gan"
SKIPPED = 3  # doublings from where a skip is taken to where it counts
SLOPE = 0.1


def read(state: dict[str, Tensor]) -> tuple[nn.Module, Spec]:
    """Rebuild a generator from the "GAN" of a checkpoint.

    Args:
        state: name -> tensor.

    Returns:
        The generator, z float32 (N, Z) -> float32 (N, C, H, W) on [0, 1]; and what the bundle says
        of it.

    Raises:
        ExportError: these are no such names or shapes.
    """
    parts = averaged(state, ("G",), EXPECTED)
    weights = {name.removeprefix("G."): value for name, value in parts.items()}
    published = Published(weights, EXPECTED)
    if "layers.0.0.2.weight" in published:
        raise ExportError(
            f"{EXPECTED}, version 0.21 or later: this one's convolutions are older ones; export it"
            " with --module"
        )
    with torch.device("meta"):
        network = Generator(published)
    return published.load(network, weights), Spec(
        published.shape("initial_conv.0.weight", 4)[0],
        family="lightweight_gan",
        output_range="0:1",
        notes=[NOTE],
    )


class Generator(nn.Module):
    """z (N, Z) -> images (N, C, H, W) on [0, 1]."""

    def __init__(self, published: Published) -> None:
        super().__init__()
        z_dim, first = published.shape("initial_conv.0.weight", 4)[:2]
        self.initial_conv = nn.Sequential(
            nn.ConvTranspose2d(z_dim, first, 4), nn.BatchNorm2d(first), nn.GLU(dim=1)
        )
        num_layers = max(published.count("layers."), 1)
        self.layers = nn.ModuleList(layer(published, n) for n in range(num_layers))
        images, last = published.shape("out_conv.weight", 4)[:2]
        self.out_conv = nn.Conv2d(last, images, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = functional.normalize(self.initial_conv(z[:, :, None, None]), dim=1)
        skips: dict[int, Tensor] = {}
        for n, parts in enumerate(self.layers):
            assert isinstance(parts, nn.ModuleDict)
            if "2" in parts:
                x = x + parts["2"](x)
            x = parts["0"](x)
            if "1" in parts:
                skips[n + SKIPPED] = parts["1"](x)
            if n in skips:
                x = x * skips[n]
        images: Tensor = self.out_conv(x)
        return images


def layer(published: Published, number: int) -> nn.ModuleDict:
    """What doubles the maps, "0"; perhaps what a skip takes of them, "1", and attention, "2"."""
    prefix = f"layers.{number}."
    num_out, num_in = published.shape(f"{prefix}0.2.1.weight", 4)[:2]
    upsample: nn.Module = nn.Upsample(scale_factor=2.0)
    shuffled = f"{prefix}0.0.net.0.weight"
    if shuffled in published:
        upsample = ShuffleUpsample(*published.shape(shuffled, 4)[:2])
    size = 8 << number
    parts: dict[str, nn.Module] = {
        "0": nn.Sequential(
            upsample,
            Blur(num_in),
            nn.Sequential(nn.ZeroPad2d((2, 1, 2, 1)), nn.Conv2d(num_in, num_out, 4)),
            FixedNoise(size, [number]),
            nn.BatchNorm2d(num_out),
            nn.GLU(dim=1),
        )
    }
    if f"{prefix}1.net.0.weight" in published:
        middle, wide = published.shape(f"{prefix}1.net.0.weight", 4)[:2]
        excited = published.shape(f"{prefix}1.net.2.weight", 4)[0]
        if f"{prefix}1.dct_weights" in published:
            parts["1"] = CosineExcitation(wide, middle, excited, size)
        else:
            parts["1"] = AttentionExcitation(wide, middle, excited)
    if f"{prefix}2.norm.g" in published:
        inner = published.shape(f"{prefix}2.fn.to_q.weight", 4)[0]
        parts["2"] = PreNorm(num_in, Attention(num_in, inner))
    return nn.ModuleDict(parts)


class ShuffleUpsample(nn.Module):
    """(N, I, H, W) -> (N, P / 4, 2H, 2W): the P values of each place are four pixels."""

    def __init__(self, num_pixels: int, num_in: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(num_in, num_pixels, 1), nn.SiLU(), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


def excitation(channels: int, middle: int, excited: int) -> nn.Sequential:
    """(N, C, 1, 1) -> factors (N, E, 1, 1) from 0 to 1."""
    return nn.Sequential(
        nn.Conv2d(channels, middle, 1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(middle, excited, 1),
        nn.Sigmoid(),
    )


class AttentionExcitation(nn.Module):
    """Factors of maps' mean weighed by softmax(k), the global context of 2012.13375."""

    def __init__(self, channels: int, middle: int, excited: int) -> None:
        super().__init__()
        self.to_k = nn.Conv2d(channels, 1, 1)
        self.net = excitation(channels, middle, excited)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.to_k(x).flatten(2), dim=2)  # (N, 1, L)
        pooled = x.flatten(2) @ weights.transpose(1, 2)  # (N, C, 1)
        factors: Tensor = self.net(pooled[:, :, :, None])
        return factors


class CosineExcitation(nn.Module):
    """Factors of each channel's coefficient of one cosine, FcaNet's of 2012.11879."""

    dct_weights: Tensor

    def __init__(self, channels: int, middle: int, excited: int, size: int) -> None:
        super().__init__()
        self.register_buffer("dct_weights", torch.empty(1, channels, size, size))
        self.net = excitation(channels, middle, excited)

    def forward(self, x: Tensor) -> Tensor:
        factors: Tensor = self.net((x * self.dct_weights).sum(dim=(2, 3), keepdim=True))
        return factors


class Attention(nn.Module):
    """Linear attention over all places beside softmax attention over each one's 3x3 neighbours."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.to_lin_q = nn.Conv2d(channels, inner, 1, bias=False)
        self.to_lin_kv = DepthwiseConv(channels, 2 * inner)
        self.to_q = nn.Conv2d(channels, inner, 1, bias=False)
        self.to_kv = nn.Conv2d(channels, 2 * inner, 1, bias=False)
        self.to_out = nn.Conv2d(2 * inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        everywhere = attend_linearly(self.to_lin_q(x), self.to_lin_kv(x))
        nearby = attend_nearby(self.to_q(x), self.to_kv(x))
        out: Tensor = self.to_out(torch.cat([everywhere, nearby], dim=1))
        return out


def attend_nearby(query: Tensor, key_and_value: Tensor) -> Tensor:
    """softmax_j(q . k_j / sqrt(d)) v_j over the nine places j around each; zeros beyond the border.

    (N, h d, H, W), (N, 2 h d, H, W) -> (N, h d, H, W).
    """
    _, channels, height, width = query.shape
    around = functional.pad(key_and_value, (1, 1, 1, 1))
    shape = (-1, HEADS, channels // HEADS, height, width)
    q = query.reshape(shape) * (channels // HEADS) ** -0.5
    neighbours = [
        around[:, :, top : top + height, left : left + width].chunk(2, dim=1)
        for top in range(3)
        for left in range(3)
    ]
    scores = [(q * key.reshape(shape)).sum(dim=2, keepdim=True) for key, _ in neighbours]
    weights = torch.softmax(torch.cat(scores, dim=2), dim=2)  # (N, h, 9, H, W)
    out = torch.zeros_like(q)
    for n, (_, value) in enumerate(neighbours):
        out = out + weights[:, :, n : n + 1] * value.reshape(shape)
    return out.reshape(-1, channels, height, width)
