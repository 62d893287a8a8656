"""BigGAN-deep of DeepMind (1809.11096), as HuggingFace's pytorch-pretrained-BigGAN published it.

`pytorch_model.bin` of biggan-deep-128, -256 and -512. Its batch norms hold statistics of 51
truncations t, 0.00, 0.02, ..., 1.00; t is an input of the graph, or fixed. In between they are
interpolated: row(t) = (1 - w) row(i) + w row(i + 1), i + w = 50 t. The original interpolates with w
and 1 - w swapped, also where 50 t misses an integer by a rounding error only, and so takes the next
row at 0.14, 0.28 and 0.56 and the one before at 0.58 and 0.94. Here a multiple of 0.02 has its own
row; at these five, and in between except half way, images differ from the original's.

The original draws z = t v, v from N(0, 1) given abs(v) <= 2. Here the network itself multiplies by
t, and the bundle draws v, which is exactly the original's distribution. Not reproduced are the
original's own draws, which are scipy's, although its v, before it is scaled, gives its images.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.importers._biggan import (
    SelfAttention,
    bottleneck,
    class_names,
    conv,
    linear,
    modulate,
    of_condition,
    start_size,
    up_conv,
)
from ganexport.importers._published import Published, torch_norm
from ganexport.subjects.spec import Spec
from ganexport.subjects.standing import Found, Place, StandingNorm
from ganinfer.drawing.model import TruncationInput
from ganinfer.errors import ExportError

EPS = 1e-4
ATTENTION = (
    "snconv1x1_theta",
    "snconv1x1_phi",
    "snconv1x1_g",
    "snconv1x1_o_conv",
    "gamma",
)
LATENT_BOUND = 2.0  # in standard deviations, before the truncation scales
T = TruncationInput(least=0.0, largest=1.0, untruncated=1.0)


def read(state: dict[str, Tensor], *, truncation: float | None = None) -> tuple[nn.Module, Spec]:
    """The generator, at one truncation or at any.

    Args:
        state: of pytorch_model.bin.
        truncation: in (0, 1]; of the statistics and the latents, fixed. None makes it an input of
            the graph, 1 for those who ask for none.

    Returns:
        The network, z (N, Z), y (N,), t (N,) unless it is fixed -> (N, 3, H, W), and what it does
        not say of itself.

    Raises:
        ExportError: the state is another network's, or the truncation is out of range.
    """
    if truncation is not None and not 0 < truncation <= 1:
        raise ExportError(
            f"hf_biggan_deep: truncation {truncation}; expected above 0 and at most 1, as in 0.4"
        )
    published = Published(state, "hf_biggan_deep: expected pytorch_model.bin of a biggan-deep")
    network = published.load(build(published), state)
    network.fix(truncation) if truncation is not None else network.open()
    num_classes = network.embeddings.in_features
    return network, Spec(
        z_dim=network.z_dim,
        output_range="-1:1",
        classes=class_names(num_classes),
        truncation=LATENT_BOUND,
        truncation_input=T if truncation is None else None,
        family="biggan_deep",
    )


def build(published: Published) -> "BigGAN":
    """A skeleton of the published names."""
    with torch.device("meta"):
        return BigGAN(published)


class BigGAN(nn.Module):
    """z (N, Z), y (N,), t (N,) unless it is fixed -> images (N, 3, H, W) on [-1, 1]."""

    def __init__(self, published: Published) -> None:
        super().__init__()
        embedding_dim, num_classes = published.shape("embeddings.weight", 2)
        condition_dim = published.shape("generator.gen_z.weight_orig", 2)[1]
        self.z_dim = condition_dim - embedding_dim
        self.embeddings = nn.Linear(num_classes, embedding_dim, bias=False)
        self.generator = Generator(published, condition_dim)
        self.truncation = 1.0
        self.place: Place | None = None

    def fix(self, truncation: float) -> None:
        """Keep the statistics of one truncation, and of the last layer the colours."""
        self.truncation = truncation
        for layer in list(self.modules()):
            if isinstance(layer, BatchNorm):
                layer.fix(truncation)
        self.generator.keep_colours()

    def open(self) -> None:
        """Keep all statistics, and of the last layer the colours."""
        norms = [layer for layer in self.modules() if isinstance(layer, BatchNorm)]
        num_stats = len(norms[0].get_buffer("running_means"))
        self.place = Place(torch.linspace(0, 1, num_stats).tolist())
        for layer in norms:
            layer.open(self.place.found)
        self.generator.keep_colours()

    def forward(self, z: Tensor, y: Tensor, t: Tensor | None = None) -> Tensor:
        if self.place is None:
            z = self.truncation * z
        else:
            t = torch.ones(len(z)) if t is None else t
            self.place(t)
            z = t[:, None] * z
        condition = torch.cat([z, of_condition(self.embeddings, y)], dim=1)
        images: Tensor = self.generator(condition)
        return images


class Generator(nn.Module):
    """Condition (N, F) -> images (N, 3, H, W)."""

    def __init__(self, published: Published, condition_dim: int) -> None:
        super().__init__()
        num_stats, width = published.shape("generator.bn.running_means", 2)
        self.layers = nn.ModuleList()
        num_blocks = 0
        for n in range(published.count("generator.layers.")):
            prefix = f"generator.layers.{n}."
            if prefix + "gamma" in published:
                channels = published.shape(prefix + "snconv1x1_theta.weight_orig", 4)[1]
                self.layers.append(SelfAttention(channels, torch_norm, ATTENTION))
                continue
            middle, in_channels = published.shape(prefix + "conv_0.weight_orig", 4)[:2]
            out_channels = published.shape(prefix + "conv_3.weight_orig", 4)[0]
            # Of the two blocks of a resolution the second doubles it.
            doubles = num_blocks % 2 == 1
            widths = (in_channels, middle, out_channels)
            self.layers.append(Block(widths, condition_dim, num_stats, doubles=doubles))
            num_blocks += 1
        first = published.shape("generator.layers.0.conv_0.weight_orig", 4)[1]
        self._start = start_size(published, "generator.gen_z.weight_orig", first)
        self.gen_z = linear(torch_norm, condition_dim, first * self._start**2)
        self.bn = FinalBatchNorm(width, num_stats)
        self.conv_to_rgb = conv(torch_norm, width, width, 3)

    def keep_colours(self) -> None:
        """The last layer makes as many maps as it takes; the first three are red, green, blue."""
        layer = self.conv_to_rgb
        assert layer.bias is not None
        layer.weight = nn.Parameter(layer.weight[:3].clone(), requires_grad=False)
        layer.bias = nn.Parameter(layer.bias[:3].clone(), requires_grad=False)

    def forward(self, condition: Tensor) -> Tensor:
        size = self._start
        maps = self.gen_z(condition).reshape(condition.shape[0], size, size, -1)
        x = maps.permute(0, 3, 1, 2)  # TensorFlow's order: channels last
        for layer in self.layers:
            x = layer(x) if isinstance(layer, SelfAttention) else layer(x, condition)
        return torch.tanh(self.conv_to_rgb(torch.relu(self.bn(x))))


class Block(nn.Module):
    """Bottleneck 1x1, 3x3, 3x3, 1x1; the skip drops the channels that are too many."""

    def __init__(
        self,
        widths: tuple[int, int, int],
        condition_dim: int,
        num_stats: int,
        *,
        doubles: bool,
    ) -> None:
        super().__init__()
        in_channels, middle, self._out_channels = widths
        self._doubles = doubles
        self.bn_0 = ConditionalBatchNorm(in_channels, condition_dim, num_stats)
        self.conv_0 = conv(torch_norm, in_channels, middle, 1)
        self.bn_1 = ConditionalBatchNorm(middle, condition_dim, num_stats)
        self.conv_1 = (
            up_conv(torch_norm, middle, middle) if doubles else conv(torch_norm, middle, middle, 3)
        )
        self.bn_2 = ConditionalBatchNorm(middle, condition_dim, num_stats)
        self.conv_2 = conv(torch_norm, middle, middle, 3)
        self.bn_3 = ConditionalBatchNorm(middle, condition_dim, num_stats)
        self.conv_3 = conv(torch_norm, middle, self._out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        layers = [
            (self.bn_0, self.conv_0),
            (self.bn_1, self.conv_1),
            (self.bn_2, self.conv_2),
            (self.bn_3, self.conv_3),
        ]
        return bottleneck(x, condition, layers, self._out_channels, doubles=self._doubles)


class BatchNorm(nn.Module):
    """Normalises by the statistics of one truncation, or looks them up: see `fix` and `open`."""

    running_mean: Tensor
    running_var: Tensor
    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, channels: int, num_stats: int) -> None:
        super().__init__()
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        self.register_buffer("running_means", torch.empty(num_stats, channels))
        self.register_buffer("running_vars", torch.empty(num_stats, channels))

    def fix(self, truncation: float) -> None:
        """Put one row in the place of all."""
        for name in ("running_mean", "running_var"):
            rows = getattr(self, f"{name}s")
            delattr(self, f"{name}s")
            self.register_buffer(name, row_of(rows, truncation))

    def open(self, found: Found) -> None:
        """Look up the rows of each image."""
        means, variances = self.get_buffer("running_means"), self.get_buffer("running_vars")
        del self.running_means, self.running_vars
        self.looked_up = StandingNorm(means, variances, found, eps=EPS)
        self.looked_up.weight, self.looked_up.bias = self.weight, self.bias

    def normal(self, x: Tensor) -> Tensor:
        if hasattr(self, "looked_up"):
            normal: Tensor = self.looked_up(x)
            return normal
        mean, var = self.running_mean, self.running_var
        return functional.batch_norm(x, mean, var, self.weight, self.bias, eps=EPS)


class ConditionalBatchNorm(BatchNorm):
    """Gain and bias are linear in the condition."""

    def __init__(self, channels: int, condition_dim: int, num_stats: int) -> None:
        super().__init__(channels, num_stats)
        self.scale = linear(torch_norm, condition_dim, channels, bias=False)
        self.offset = linear(torch_norm, condition_dim, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return modulate(self.normal(x), self.scale(condition), self.offset(condition))


class FinalBatchNorm(BatchNorm):
    """Gain and bias are its own."""

    def __init__(self, channels: int, num_stats: int) -> None:
        super().__init__(channels, num_stats)
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.normal(x)


def row_of(rows: Tensor, truncation: float) -> Tensor:
    """Statistics (S, C) of the truncations 0, 1 / (S - 1), ..., 1 -> (C,), those of this one."""
    place = truncation * (len(rows) - 1)
    if abs(place - round(place)) < 1e-6:  # a row's own truncation, but for rounding
        return rows[round(place)].clone()
    below = int(place)
    return torch.lerp(rows[below], rows[below + 1], place - below)
