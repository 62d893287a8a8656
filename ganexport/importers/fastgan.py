"""FastGAN generators: the original's, and those of Projected GAN, with classes or without.

Liu, Zhu, Song, Elgammal, Towards Faster and Stabilized GAN Training for High-fidelity Few-shot
Image Synthesis, 2101.04775; Sauer, Chitta, Mueller, Geiger, Projected GANs Converge Faster,
2111.01007.

    unit        x <- glu(norm(conv(x) + weight noise)), where glu(a, b) = a sigmoid(b)
    block       nearest-neighbour doubling, then one unit without noise or two with it
    skip        x_{16 r} <- x_{16 r} sigmoid(conv(silu(conv(pooled x_r)))), r = 4, 8, 16, 32

Whose it is, its size and its kind of blocks are read off the names. Projected GAN's latents are
divided by their root mean square; 1024-pixel images of the original pass through tanh. Noise is
drawn once here and kept, where the originals draw it for each image. Batch norms have the running
statistics of the checkpoint; the original's eval.py takes those of each batch.

Of the original's files, `models/50000.pth` holds the averaged generator under "g", and
`all_50000.pth` the one that is not averaged. N batch; C, H, W; Z latent; K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers._biggan import class_names, conv, linear, modulate
from ganexport.importers._fixed_noise import NOTE, FixedNoise
from ganexport.importers._published import Published, torch_norm
from ganexport.importers._resampling import double
from ganexport.subjects.spec import Spec
from ganinfer.errors import ExportError
from gantrain.models._mapping import normalised

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
SKIPS = {64: 4, 128: 8, 256: 16, 512: 32}  # size of the maps -> size of those they are weighed by
PROJECTED = "synthesis."  # begins the names of Projected GAN


def read(state: dict[str, Tensor]) -> tuple[nn.Module, Spec]:
    """Rebuild a generator from "g" of a checkpoint, or from `G_ema.state_dict()` of Projected GAN.

    Args:
        state: name -> tensor.

    Returns:
        The generator, z float32 (N, Z), with classes y int64 (N,) -> float32 (N, C, H, W),
        nominally on [-1, 1]; and what the bundle says of it.

    Raises:
        ExportError: these are no such names or shapes.
    """
    weights = {name.removeprefix(PROJECTED): value for name, value in state.items()}
    published = Published(
        weights, "fastgan: expected a generator of FastGAN-pytorch, or of Projected GAN's FastGAN"
    )
    with torch.device("meta"):
        network = Generator(published)
    published.load(network, weights)
    return network, Spec(
        network.z_dim,
        class_names(network.num_classes),
        family="fastgan",
        output_range="-1:1",
        notes=[NOTE] if network.has_noise else [],
    )


class Generator(nn.Module):
    """z (N, Z), with classes y (N,) -> images (N, C, H, W)."""

    def __init__(self, published: Published) -> None:
        super().__init__()
        self.z_dim, first = published.shape("init.init.0.weight_orig", 4)[:2]
        self.init = nn.ModuleDict({"init": first_maps(self.z_dim, first)})
        self.num_classes = 0
        if "embed.weight" in published:
            self.num_classes = published.shape("embed.weight", 2)[0]
            self.embed = nn.Embedding(self.num_classes, self.z_dim)
        self._sizes = [size for size in SIZES if _first_convolution(published, size) is not None]
        for number, size in enumerate(self._sizes):
            self.add_module(f"feat_{size}", block(published, size, 2 * number))
        for size in SKIPS:
            if f"se_{size}.main.1.weight_orig" in published:
                wide, pooled = published.shape(f"se_{size}.main.1.weight_orig", 4)[:2]
                self.add_module(f"se_{size}", Excitation(pooled, wide))
        images, last = published.shape("to_big.weight_orig", 4)[:2]
        self.to_big = conv(torch_norm, last, images, 3, bias="to_big.bias" in published)
        self._projected = "to_128.weight_orig" not in published
        if not self._projected:  # of 128 pixels beside the images, for the discriminator
            wide = published.shape("to_128.weight_orig", 4)[1]
            self.to_128 = conv(torch_norm, wide, images, 1, bias=False)
        self._sizes = self._sizes[: 1 + self._last(published, last)]
        self.has_noise = any(isinstance(layer, FixedNoise) for layer in self.modules())

    def _last(self, published: Published, channels: int) -> int:
        """The block whose maps become the image: Projected GAN's 128-pixel networks have one more.

        Raises:
            ExportError: none gives so many channels.
        """
        for number in reversed(range(len(self._sizes))):
            if out_channels(published, self._sizes[number]) == channels:
                return number
        raise ExportError(
            f"{published.what}: to_big takes {channels} channels, and no feat_* gives as many; the"
            " file holds another network"
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        if self._projected:
            z = normalised(z)
        given = () if y is None else (self.embed(y),)
        x = self.init["init"](z[:, :, None, None])
        maps = {4: x}
        for size in self._sizes:
            x = self.get_submodule(f"feat_{size}")(x, *given)
            if size in SKIPS:
                x = x * self.get_submodule(f"se_{size}")(maps[SKIPS[size]])
            maps[size] = x
        images: Tensor = self.to_big(x)
        tanh = not self._projected and self._sizes[-1] == SIZES[-1]
        return torch.tanh(images) if tanh else images


def _first_convolution(published: Published, size: int) -> str | None:
    """The name of a block's first convolution, which says its kind; None if there is no block."""
    names = [f"feat_{size}.{part}.weight_orig" for part in ("1", "conv", "conv1")]
    return next((name for name in names if name in published), None)


def out_channels(published: Published, size: int) -> int:
    """C of a block's maps."""
    name = _first_convolution(published, size)
    assert name is not None
    return published.shape(name, 4)[0] // 2


def first_maps(z_dim: int, channels: int) -> nn.Sequential:
    """(N, Z, 1, 1) -> (N, C / 2, 4, 4)."""
    layer = nn.ConvTranspose2d(z_dim, channels, 4, bias=False)
    torch_norm(layer)
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.GLU(dim=1))


def block(published: Published, size: int, seed: int) -> nn.Module:
    """A block that gives maps of so many pixels; its noises are of this seed and the next."""
    name = _first_convolution(published, size)
    assert name is not None
    num_out, num_in = published.shape(name, 4)[:2]
    if name.endswith((".conv.weight_orig", ".conv1.weight_orig")):
        z_dim = published.shape("embed.weight", 2)[1]
        two = name.endswith(".conv1.weight_orig")
        return ConditionalBlock(num_in, num_out, z_dim, size, [seed, seed + 1] if two else [])
    layers: list[nn.Module] = [
        nn.Upsample(scale_factor=2.0),
        conv(torch_norm, num_in, num_out, 3, bias=False),
    ]
    if f"feat_{size}.5.weight_orig" not in published:
        return nn.Sequential(*layers, nn.BatchNorm2d(num_out), nn.GLU(dim=1))
    layers += [FixedNoise(size, [seed]), nn.BatchNorm2d(num_out), nn.GLU(dim=1)]
    layers += [conv(torch_norm, num_out // 2, num_out, 3, bias=False)]
    layers += [FixedNoise(size, [seed + 1]), nn.BatchNorm2d(num_out), nn.GLU(dim=1)]
    return nn.Sequential(*layers)


class ConditionalBlock(nn.Module):
    """Maps (N, I, H/2, W/2), class embedding (N, Z) -> (N, O/2, H, W): one unit, or two with noise.

    seeds: of the two noises; none for one unit.
    """

    def __init__(self, num_in: int, num_out: int, z_dim: int, size: int, seeds: list[int]) -> None:
        super().__init__()
        self._units = [("conv1", "bn1"), ("conv2", "bn2")] if seeds else [("conv", "bn")]
        for convolution, norm in self._units:
            self.add_module(convolution, conv(torch_norm, num_in, num_out, 3, bias=False))
            self.add_module(norm, ConditionalBatchNorm(num_out, z_dim))
            num_in = num_out // 2
        if seeds:
            self.noise = FixedNoise(size, seeds)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = double(x)
        for number, (convolution, norm) in enumerate(self._units):
            x = self.get_submodule(convolution)(x)
            if len(self._units) > 1:
                x = self.noise(x, number)
            x = functional.glu(self.get_submodule(norm)(x, condition), dim=1)
        return x


class ConditionalBatchNorm(nn.Module):
    """Gain and bias are of the class embedding: x (N, C, H, W), (N, Z) -> (N, C, H, W)."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, z_dim: int) -> None:
        super().__init__()
        self.gain = linear(torch_norm, z_dim, channels)
        self.bias = linear(torch_norm, z_dim, channels)
        self.register_buffer("stored_mean", torch.empty(channels))
        self.register_buffer("stored_var", torch.empty(channels))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = functional.batch_norm(x, self.stored_mean, self.stored_var)
        return modulate(x, self.gain(condition), self.bias(condition))


class Excitation(nn.Module):
    """Maps (N, C, h, h), h a multiple of 4 -> factors (N, E, 1, 1) from 0 to 1."""

    def __init__(self, channels: int, excited: int) -> None:
        super().__init__()
        pooled = nn.Conv2d(channels, excited, 4, bias=False)
        torch_norm(pooled)
        last = conv(torch_norm, excited, excited, 1, bias=False)
        self.main = nn.Sequential(Pool(), pooled, nn.SiLU(), last, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        factors: Tensor = self.main(x)
        return factors


class Pool(nn.Module):
    """Means of sixteen equal squares: (N, C, h, h) -> (N, C, 4, 4)."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, x.shape[2] // 4)
