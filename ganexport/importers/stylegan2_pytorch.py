"""StyleGAN2 generators of lucidrains' stylegan2-pytorch, from its checkpoint `model_N.pt`.

The averaged mapping network and generator, SE and GE, are taken. The network differs from NVIDIA's:
maps and images are doubled bilinearly, styles are added to 1, layers have no gains, and one uniform
noise image serves all layers, each channel of which weighs it differently.

That noise is drawn once here and kept, where the original draws it for each image. psi is an input
of the graph; the mean of w, which the original takes over 2,000 latents of its own at each start,
is that of the latents of the seeds 0 to 4095.

Versions from 1.8 on are read, and from 1.0 on those that have no attention.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers._fixed_noise import NOTE
from ganexport.importers._lucidrains import DepthwiseConv, PreNorm, attend_linearly, averaged
from ganexport.importers._published import Published
from ganexport.importers._resampling import Blur, double_bilinearly
from ganexport.subjects.noise import UNIFORM, Draw, drawn
from ganexport.subjects.spec import Spec
from ganexport.subjects.styled import psi_input
from ganinfer.drawing.latents import draw_latents
from ganinfer.errors import ExportError
from gantrain.models._derived import Layer
from gantrain.models._modulation import Modulated

NUM_AVERAGED = 4096  # latents for the mean of w
SLOPE = 0.2
EXPECTED = "stylegan2_pytorch: expected a checkpoint of lucidrains' stylegan2-pytorch"


def read(
    state: dict[str, Tensor], *, truncation_psi: float | None = None, lr_mlp: float = 0.1
) -> tuple[nn.Module, Spec]:
    """Rebuild a generator from the "GAN" of a checkpoint.

    Args:
        state: name -> tensor. Resolution, widths and layers with attention are read off it.
        truncation_psi: of w, fixed: 1 for none, 0 for the mean image. None makes it an input of
            the graph, 1 for those who ask for none.
        lr_mlp: `--lr-mlp` of the training, by which the mapping network's weights are multiplied.

    Returns:
        The generator, z float32 (N, Z) and psi float32 (N,) unless it is fixed -> float32
        (N, C, H, W) on [0, 1]; and what the bundle says of it.

    Raises:
        ExportError: these are no such names or shapes; the options do not fit.
    """
    if lr_mlp <= 0:
        raise ExportError(f"lr_mlp {lr_mlp}: expected a positive number, as in training; often 0.1")
    parts = averaged(state, ("S", "G"), EXPECTED)
    published = Published(parts, EXPECTED)
    with torch.device("meta"):
        network = Generator(published, truncation_psi, lr_mlp)
    published.load(network, parts)
    network.average()
    return network, Spec(
        network.z_dim,
        truncation_input=psi_input(truncation_psi),
        family="stylegan2",
        output_range="0:1",
        notes=[NOTE],
    )


class Generator(nn.Module):
    """z (N, Z), psi (N,) unless it is fixed -> images (N, C, H, W) on [0, 1]."""

    w_avg: Tensor

    def __init__(self, published: Published, psi: float | None, lr_mlp: float) -> None:
        super().__init__()
        self._psi = psi
        self.S = Mapping(published, lr_mlp)
        self.G = Synthesis(published)
        self.z_dim = published.shape("S.net.0.weight", 2)[1]

    @torch.no_grad()
    def average(self) -> None:
        """Keep the mean of w."""
        z = torch.from_numpy(draw_latents(range(NUM_AVERAGED), self.z_dim))
        self.register_buffer("w_avg", self.S(z).mean(dim=0), persistent=False)

    def forward(self, z: Tensor, *given: Tensor) -> Tensor:
        psi = given[0][:, None] if self._psi is None else self._psi
        images: Tensor = self.G(self.w_avg + psi * (self.S(z) - self.w_avg))
        return images


class Mapping(nn.Module):
    """z (N, Z) -> w (N, Z)."""

    def __init__(self, published: Published, rate: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n in range(0, 2 * max(published.count("S.net."), 1), 2):
            num_out, num_in = published.shape(f"S.net.{n}.weight", 2)
            layers += [Dense(num_in, num_out, rate), nn.LeakyReLU(SLOPE)]
        self.net = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        w: Tensor = self.net(functional.normalize(z, dim=1))
        return w


class Dense(Layer):
    """x (N, I) -> rate (W x + b) (N, O)."""

    kernel: Tensor
    offset: Tensor

    def __init__(self, num_in: int, num_out: int, rate: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in))
        self.bias = nn.Parameter(torch.empty(num_out))
        self._rate = rate

    def derive(self) -> dict[str, Tensor]:
        return {"kernel": self._rate * self.weight, "offset": self._rate * self.bias}

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.kernel, self.offset)


class Synthesis(Layer):
    """w (N, Z) -> images (N, C, H, W)."""

    noise: Tensor

    def __init__(self, published: Published) -> None:
        super().__init__()
        num_blocks = max(published.count("G.blocks."), 1)
        widths = [published.shape(f"G.blocks.{n}.conv1.weight", 4)[:2] for n in range(num_blocks)]
        z_dim = published.shape("G.blocks.0.to_style1.weight", 2)[1]
        first = widths[0][1]
        self._size = 4 << (num_blocks - 1)
        self._constant = "G.to_initial_block.weight" not in published
        if self._constant:
            self.initial_block = nn.Parameter(torch.empty(1, first, 4, 4))
        else:
            self.to_initial_block = nn.ConvTranspose2d(z_dim, first, 4, bias=False)
        self.initial_conv = nn.Conv2d(first, first, 3, padding=1)
        self.blocks = nn.ModuleList(
            Block(num_in, num_out, z_dim, published, n)
            for n, (num_out, num_in) in enumerate(widths)
        )
        self.attns = nn.ModuleDict(
            {
                str(n): attention(widths[n][1], published, f"G.attns.{n}.")
                for n in range(num_blocks)
                if f"G.attns.{n}.0.fn.norm.g" in published
            }
        )

    def derive(self) -> dict[str, Tensor]:
        return {"noise": drawn(Draw(UNIFORM, (self._size, self._size)), 0)}

    def forward(self, w: Tensor) -> Tensor:
        if self._constant:
            x = self.initial_block.expand(w.shape[0], -1, -1, -1)
        else:
            x = self.to_initial_block(w[:, :, None, None])
        x = self.initial_conv(x)
        image: Tensor | None = None
        for n, block in enumerate(self.blocks):
            if str(n) in self.attns:
                x = self.attns[str(n)](x)
            size = 4 << n
            x, image = block(x, image, w, self.noise[:size, :size])
        assert image is not None
        return image


class Block(nn.Module):
    """Maps (N, I, H/2, W/2), image, w, noise (H, W) -> maps (N, O, H, W) and image.

    The first doubles no maps, the last no image.
    """

    def __init__(
        self, num_in: int, num_out: int, z_dim: int, published: Published, number: int
    ) -> None:
        super().__init__()
        self._doubles = number > 0
        self.to_style1 = nn.Linear(z_dim, num_in)
        self.to_noise1 = nn.Linear(1, num_out)
        self.conv1 = Convolution(num_in, num_out)
        self.to_style2 = nn.Linear(z_dim, num_out)
        self.to_noise2 = nn.Linear(1, num_out)
        self.conv2 = Convolution(num_out, num_out)
        not_last = f"G.blocks.{number + 1}.conv1.weight" in published
        prefix = f"G.blocks.{number}.to_rgb."
        self.to_rgb = ToRGB(num_out, z_dim, published, prefix, doubles=not_last)

    def forward(
        self, x: Tensor, image: Tensor | None, w: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self._doubles:
            x = double_bilinearly(x)
        x = functional.leaky_relu(
            self.conv1(x, self.to_style1(w)) + weighed(noise, self.to_noise1), SLOPE
        )
        x = functional.leaky_relu(
            self.conv2(x, self.to_style2(w)) + weighed(noise, self.to_noise2), SLOPE
        )
        return x, self.to_rgb(x, image, w)


class Convolution(Modulated):
    """x (N, I, H, W), style (N, I) -> (N, O, H, W): modulated by 1 + style, demodulated."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in, 3, 3))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        own = self.derived()
        scale_in, scale_out = self.modulation(1 + style, own)
        return functional.conv2d(x * scale_in, own["kernel"], padding=1) * scale_out


class ToRGB(nn.Module):
    """x (N, I, H, W), image (N, C, H, W) or None, w -> image.

    What is doubled is blurred, but in version 1.0.
    """

    def __init__(
        self, num_in: int, z_dim: int, published: Published, prefix: str, *, doubles: bool
    ) -> None:
        super().__init__()
        num_out = published.shape(f"{prefix}conv.weight", 4)[0]
        self._doubles = doubles
        self.to_style = nn.Linear(z_dim, num_in)
        self.conv = nn.Conv2d(num_in, num_out, 1, bias=False)
        self.upsample = nn.ModuleDict()
        if f"{prefix}upsample.1.f" in published:
            self.upsample["1"] = Blur(num_out)

    def forward(self, x: Tensor, image: Tensor | None, w: Tensor) -> Tensor:
        rgb: Tensor = self.conv(x * (1 + self.to_style(w))[:, :, None, None])
        if image is not None:
            rgb = rgb + image
        if self._doubles:
            rgb = double_bilinearly(rgb)
        return self.upsample["1"](rgb) if self.upsample else rgb


class Residual(nn.Module):
    """x + fn(x)."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fn(x)
        return out


class Attention(nn.Module):
    """Linear attention: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.to_q = nn.Conv2d(channels, inner, 1, bias=False)
        self.to_kv = DepthwiseConv(channels, 2 * inner)
        self.to_out = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.to_out(attend_linearly(self.to_q(x), self.to_kv(x)))
        return out


def attention(channels: int, published: Published, prefix: str) -> nn.Module:
    """Attention and a layer of each place's own, both residual."""
    inner = published.shape(f"{prefix}0.fn.fn.to_q.weight", 4)[0]
    hidden = published.shape(f"{prefix}1.fn.fn.0.weight", 4)[0]
    layers = nn.Sequential(
        nn.Conv2d(channels, hidden, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(hidden, channels, 1)
    )
    return nn.Sequential(
        Residual(PreNorm(channels, Attention(channels, inner))),
        Residual(PreNorm(channels, layers)),
    )


def weighed(noise: Tensor, layer: nn.Module) -> Tensor:
    """Noise (H, W) by each channel's weight and bias: (C, H, W)."""
    assert isinstance(layer, nn.Linear)
    return layer.weight[:, :, None] * noise + layer.bias[:, None, None]
