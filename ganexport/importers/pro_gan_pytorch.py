"""Progressive GAN generators of pro_gan_pytorch (pro-gan-pth on the package index), versions 3.x.

Karras, Aila, Laine, Lehtinen, Progressive Growing of GANs for Improved Quality, Stability, and
Variation, 1710.10196.

    norm        x / sqrt(mean_c x^2 + 1e-8)
    layer       x <- norm(lrelu(sqrt(2 / fan in) W * x + b)), lrelu's slope 0.2

The averaged generator, "shadow_generator" of a checkpoint, is found by itself. A checkpoint holds
layers of all resolutions, and those that the training had not reached are random: `depth` is that
in the file's name, `depth_5_epoch_24.bin`. A resolution that is still fading in is taken as it is
when it has.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers._published import Published
from ganexport.importers._resampling import double
from ganexport.subjects.spec import Spec
from ganinfer.errors import ExportError
from gantrain.models._derived import Layer
from gantrain.models._mapping import normalised

SLOPE = 0.2


def read(
    state: dict[str, Tensor], *, depth: int | None = None, use_eql: bool = True
) -> tuple[nn.Module, Spec]:
    """Rebuild a generator from its "state_dict".

    Args:
        state: name -> tensor.
        depth: log2 of the images' size, at most that of the network; None for the network's.
        use_eql: equalised learning rate, as in training; no name says it.

    Returns:
        The generator, z float32 (N, Z) -> float32 (N, C, H, W), nominally on [-1, 1]; and what the
        bundle says of it.

    Raises:
        ExportError: these are no such names or shapes; the depth is none of its.
    """
    published = Published(state, "pro_gan_pytorch: expected a generator of pro_gan_pytorch 3.x")
    deepest = max(published.count("layers."), 1) + 1
    if depth is not None and not 2 <= depth <= deepest:
        raise ExportError(
            f"depth {depth}: expected 2 to {deepest}, log2 of the images' size, as in the name of"
            " the file, depth_5_epoch_24.bin"
        )
    with torch.device("meta"):
        network = Generator(published, depth or deepest, equalised=use_eql)
    published.load(network, state)
    network.prune()
    z_dim = published.shape("layers.0.conv_1.weight", 4)[0]
    return network, Spec(z_dim, family="progan", output_range="-1:1")


class Generator(nn.Module):
    """z (N, Z) -> images (N, C, H, W) of the last resolution."""

    def __init__(self, published: Published, depth: int, *, equalised: bool) -> None:
        super().__init__()
        self._num_layers = depth - 1
        self.layers, self.rgb_converters = nn.ModuleList(), nn.ModuleList()
        for n in range(max(published.count("layers."), 1)):
            first, second, image = (
                published.shape(f"{name}.weight", 4)
                for name in (f"layers.{n}.conv_1", f"layers.{n}.conv_2", f"rgb_converters.{n}")
            )
            self.layers.append(Block(first, second, equalised, is_first=n == 0))
            self.rgb_converters.append(Convolution(image, equalised))

    def prune(self) -> None:
        """Leave the resolutions out that are not reached."""
        self.rgb_converters = self.rgb_converters[self._num_layers - 1 : self._num_layers]
        self.layers = self.layers[: self._num_layers]

    def forward(self, z: Tensor) -> Tensor:
        x = normalised(z)[:, :, None, None]
        for block in self.layers:
            x = block(x)
        images: Tensor = self.rgb_converters[0](x)
        return images


class Block(nn.Module):
    """Doubled maps, or the first latent, -> maps of twice the size; 4x4 from the latent."""

    def __init__(
        self, first: tuple[int, ...], second: tuple[int, ...], equalised: bool, *, is_first: bool
    ) -> None:
        super().__init__()
        self._is_first = is_first
        self.conv_1 = Transposed(first, equalised) if is_first else Convolution(first, equalised)
        self.conv_2 = Convolution(second, equalised)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_1(x if self._is_first else double(x))
        x = functional.leaky_relu(x, SLOPE)
        if not self._is_first:
            x = normalised(x)
        return normalised(functional.leaky_relu(self.conv_2(x), SLOPE))


class Convolution(Layer):
    """x (N, I, H, W) -> (N, O, H, W), its weights scaled by sqrt(2 / fan in) if equalised."""

    kernel: Tensor

    def __init__(self, shape: tuple[int, ...], equalised: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[0]))
        self._scale = math.sqrt(2 / math.prod(shape[1:])) if equalised else 1.0

    def derive(self) -> dict[str, Tensor]:
        return {"kernel": self._scale * self.weight}

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.kernel, self.bias, padding=self.kernel.shape[-1] // 2)


class Transposed(Layer):
    """x (N, I, 1, 1) -> (N, O, k, k); its fan in is I."""

    kernel: Tensor

    def __init__(self, shape: tuple[int, ...], equalised: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape[1]))
        self._scale = math.sqrt(2 / shape[0]) if equalised else 1.0

    def derive(self) -> dict[str, Tensor]:
        return {"kernel": self._scale * self.weight}

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv_transpose2d(x, self.kernel, self.bias)
