"""Generators of torch-mimicry: DCGAN, SNGAN, WGAN-GP, InfoMax-GAN, SSGAN, cGAN-PD and SAGAN.

Their residual generators are one network: of 32, 48, 64 or 128 pixels, plain or with classes, and
SAGAN's with spectral norm and attention. "model_state_dict" of a checkpoint is found by itself.

    block       x <- conv(relu(norm(up(conv(relu(norm(x))))))) + up(x), where up doubles bilinearly

Batch norms have the running statistics of the checkpoint. N batch; C, H, W; Z latent; K classes.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ganexport.importers._biggan import SelfAttention, class_names, conv, linear, start_size
from ganexport.importers._published import Norm, Published, plain, torch_norm
from ganexport.importers._resampling import double_bilinearly
from ganexport.subjects.spec import Spec
from ganinfer.errors import ExportError

ATTENTION = ("theta", "phi", "g", "o", "gamma")
ATTENDED = {3: 2, 5: 3}  # number of blocks -> how many of them come before SAGAN's attention
ENDS = {"tanh": "-1:1", "sigmoid": "0:1"}


def read(
    state: dict[str, Tensor], *, output: Literal["tanh", "sigmoid"] = "tanh"
) -> tuple[nn.Module, Spec]:
    """Rebuild a generator from "model_state_dict" of a checkpoint.

    Args:
        state: name -> tensor.
        output: "sigmoid" of a DCGANGeneratorCIFAR, whose names are those of a DCGANGenerator32.

    Returns:
        The generator, z float32 (N, Z), with classes y int64 (N,) -> float32 (N, 3, H, W) on
        [-1, 1] or [0, 1]; and what the bundle says of it.

    Raises:
        ExportError: these are no such names or shapes.
    """
    published = Published(
        state, "torch_mimicry: expected a generator's checkpoint of torch-mimicry"
    )
    with torch.device("meta"):
        network = Generator(published, output)
    return published.load(network, state), Spec(
        published.shape(f"l1.{network.weight}", 2)[1],
        class_names(network.num_classes),
        family="resnet",
        output_range=ENDS[output],
    )


class Generator(nn.Module):
    """z (N, Z), with classes y (N,) -> images (N, 3, H, W)."""

    def __init__(self, published: Published, output: str) -> None:
        super().__init__()
        self._output = output
        norm = torch_norm if "l1.weight_orig" in published else plain
        self.weight = "weight" if norm is plain else "weight_orig"
        self.num_classes = 0
        if "block2.b1.embed.weight" in published:
            self.num_classes = published.shape("block2.b1.embed.weight", 2)[0]
        self._numbers = range(2, 2 + max(published.count("block"), 1))
        for n in self._numbers:
            self.add_module(f"block{n}", self._block(published, n, norm))
        first, last = (
            published.shape(f"block{n}.{part}.{self.weight}", 4)[axis]
            for n, part, axis in ((2, "c1", 1), (self._numbers[-1], "c2", 0))
        )
        self._start = start_size(published, f"l1.{self.weight}", first)
        rows, z_dim = published.shape(f"l1.{self.weight}", 2)
        self.l1 = linear(norm, z_dim, rows)
        self._end = self._numbers[-1] + 1
        self.add_module(f"b{self._end}", nn.BatchNorm2d(last))
        self.add_module(f"c{self._end}", conv(norm, last, 3, 3))
        self._attended = 0
        if "attn_block.gamma" in published:
            self._attended = 1 + attended(published, len(self._numbers))
            channels = published.shape(f"attn_block.theta.{self.weight}", 4)[1]
            self.attn_block = SelfAttention(channels, norm, ATTENTION, gain_shape=())

    def _block(self, published: Published, number: int, norm: Norm) -> "Block":
        prefix = f"block{number}."
        middle, num_in = published.shape(f"{prefix}c1.{self.weight}", 4)[:2]
        num_out = published.shape(f"{prefix}c2.{self.weight}", 4)[0]
        return Block(num_in, middle, num_out, self.num_classes, norm)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.l1(z).reshape(z.shape[0], -1, self._start, self._start)
        for n in self._numbers:
            x = self.get_submodule(f"block{n}")(x, y)
            if n == self._attended:
                x = self.attn_block(x)
        x = torch.relu(self.get_submodule(f"b{self._end}")(x))
        x = self.get_submodule(f"c{self._end}")(x)
        return torch.tanh(x) if self._output == "tanh" else torch.sigmoid(x)


def attended(published: Published, num_blocks: int) -> int:
    """How many blocks come before the attention, which no name says.

    Raises:
        ExportError: SAGAN has no generator of so many blocks.
    """
    if num_blocks not in ATTENDED:
        raise ExportError(
            f"{published.what}: attention among {num_blocks} blocks, and its place is known for"
            " SAGAN's 3 (32 pixels) and 5 (128 pixels); export it with --module"
        )
    return ATTENDED[num_blocks]


class Block(nn.Module):
    """x (N, I, H, W), y (N,) or None -> (N, O, 2H, 2W)."""

    def __init__(
        self, num_in: int, middle: int, num_out: int, num_classes: int, norm: Norm
    ) -> None:
        super().__init__()
        self.b1 = BatchNorm(num_in, num_classes) if num_classes else nn.BatchNorm2d(num_in)
        self.b2 = BatchNorm(middle, num_classes) if num_classes else nn.BatchNorm2d(middle)
        self.c1 = conv(norm, num_in, middle, 3)
        self.c2 = conv(norm, middle, num_out, 3)
        self.c_sc = conv(norm, num_in, num_out, 1)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        given = () if y is None else (y,)
        h = self.c1(double_bilinearly(torch.relu(self.b1(x, *given))))
        h = self.c2(torch.relu(self.b2(h, *given)))
        # A 1x1 convolution of doubled maps is the doubled one, at four times the price.
        out: Tensor = h + double_bilinearly(self.c_sc(x))
        return out


class BatchNorm(nn.Module):
    """Gain and bias are of the class: x (N, C, H, W), y (N,) -> (N, C, H, W)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, affine=False)
        self.embed = nn.Embedding(num_classes, 2 * channels)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gain, bias = self.embed(y)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = self.bn(x) * gain + bias
        return out
