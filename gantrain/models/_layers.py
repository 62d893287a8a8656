"""Layers that the architectures share.

N batch; C, H, W; Z latent; K classes; F features. y is int64 (N,), never one-hot.
"""

import copy
from collections.abc import Callable
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ganinfer.errors import ConfigError
from gantrain.data.resolution import Resolution, Size, in_words, size_of
from gantrain.distributed import all_mean, world_size

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all processes (BigGAN's cross-replica batch norm)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and world_size() > 1:
            return _shared_batch_norm(self, x)
        normal: Tensor = super().forward(x)
        return normal


class BatchNorm1d(nn.BatchNorm1d):
    """The same for vectors (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and world_size() > 1:
            return _shared_batch_norm(self, x[:, :, None, None])[:, :, 0, 0]
        normal: Tensor = super().forward(x)
        return normal


def _shared_batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Normalise (N, C, H, W) by the moments of all processes, and note them in the layer."""
    count = x.numel() // x.shape[1] * world_size()
    wide = x.float()
    mean = all_mean(wide.mean((0, 2, 3)))
    centred = wide - mean[:, None, None]
    variance = all_mean(centred.square().mean((0, 2, 3)))
    with torch.no_grad():
        assert layer.running_mean is not None
        assert layer.running_var is not None
        assert layer.num_batches_tracked is not None
        layer.num_batches_tracked += 1
        rate = layer.momentum or 1 / float(layer.num_batches_tracked)
        layer.running_mean.lerp_(mean, rate)
        layer.running_var.lerp_(variance * (count / (count - 1)), rate)
    normal = centred * torch.rsqrt(variance + layer.eps)[:, None, None]
    if layer.affine:
        normal = normal * layer.weight[:, None, None] + layer.bias[:, None, None]
    return normal.to(x.dtype)


class ConditionalBatchNorm2d(nn.Module):
    """Batch norm whose gain and bias belong to the class: BN(x) * (1 + gain[y]) + bias[y].

    (N, C, H, W), y -> (N, C, H, W). With K = 0 it is plain batch norm, and y is not looked at.
    """

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(num_features, affine=num_classes == 0)
        self.gain_and_bias: nn.Embedding | None = None
        if num_classes:
            self.gain_and_bias = nn.Embedding(num_classes, 2 * num_features)
            nn.init.zeros_(self.gain_and_bias.weight)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        normal: Tensor = self.norm(x)
        if self.gain_and_bias is None:
            return normal
        return modulate(normal, self.gain_and_bias(y))


class ModulatedBatchNorm2d(nn.Module):
    """BigGAN's: gain and bias are linear in a condition (N, F): BN(x) * (1 + W c) + V c."""

    def __init__(self, num_features: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(num_features, affine=False)
        self.gain_and_bias = nn.Linear(condition_dim, 2 * num_features, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return modulate(self.norm(x), self.gain_and_bias(condition))


def modulate(x: Tensor, gain_and_bias: Tensor) -> Tensor:
    """X * (1 + gain) + bias; x (N, C, H, W), gain_and_bias (N, 2C)."""
    gain, bias = gain_and_bias[:, :, None, None].to(x.dtype).chunk(2, dim=1)
    return x * (1 + gain) + bias


class UpConv2d(nn.Conv2d):
    """Nearest-neighbour upsampling x2, then a 3x3 convolution: (N, C, H, W) -> (N, C', 2H, 2W).

    Computed as the one transposed convolution, 4x4 and of stride 2, that it equals: of each
    output's 9 products only 4 differ.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        kernel = widen(self.weight.flip(2, 3)).transpose(0, 1)
        return functional.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)

    def plain(self) -> nn.ConvTranspose2d:
        """The transposed convolution itself, for export."""
        twin = nn.ConvTranspose2d(self.in_channels, self.out_channels, 4, 2, 1)
        return _with_weights(twin, widen(self.weight.flip(2, 3)).transpose(0, 1), self.bias)


class DownConv2d(nn.Conv2d):
    """A 3x3 convolution, then 2x2 average pooling: (N, C, 2H, 2W) -> (N, C', H, W).

    Computed as the one 4x4 convolution of stride 2 that it equals.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, widen(self.weight) / 4, self.bias, stride=2, padding=1)


def widen(kernel: Tensor) -> Tensor:
    """A 3x3 kernel convolved with 2x2 ones: (O, I, 3, 3) -> (O, I, 4, 4)."""
    rows = functional.pad(kernel, (0, 0, 0, 1)) + functional.pad(kernel, (0, 0, 1, 0))
    return functional.pad(rows, (0, 1)) + functional.pad(rows, (1, 0))


def _with_weights(
    layer: nn.ConvTranspose2d, weight: Tensor, bias: Tensor | None
) -> nn.ConvTranspose2d:
    layer.weight = nn.Parameter(weight.detach().clone())
    layer.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return layer


class ClassLogits(nn.Linear):
    """A linear layer whose outputs belong to classes, one each."""


# Layers whose weights have a row for each class.
PER_CLASS = (nn.Embedding, ClassLogits)


class Head(nn.Module):
    """The projection discriminator's last layer: psi(f) + <embed(y), f> (1802.05637).

    Features (N, F), y (N,) or None -> logits (N,). With K = 0 it is linear, and y is not looked at.
    """

    def __init__(self, num_features: int, num_classes: int, *, num_outputs: int = 1) -> None:
        super().__init__()
        self.num_features = num_features
        self.to_logit = nn.Linear(num_features, num_outputs)
        self.embed = nn.Embedding(num_classes, num_features) if num_classes else None

    def forward(self, features: Tensor, y: Tensor | None = None) -> Tensor:
        logits: Tensor = self.to_logit(features).squeeze(1)
        if self.embed is not None:
            logits = logits + (self.embed(y) * features).sum(1)
        return logits

    def widened(self, num_more: int) -> Self:
        """This head for features that have num_more columns more; their weights are small."""
        wide = copy.deepcopy(self)
        wide.num_features += num_more
        for layer in wide.children():
            assert isinstance(layer, nn.Linear | nn.Embedding)
            more = 0.02 * torch.randn(len(layer.weight), num_more)
            layer.weight = nn.Parameter(torch.cat([layer.weight.detach(), more], dim=1))
        return wide


class SelfAttention(nn.Module):
    """SAGAN's: x + gamma * o(softmax(theta(x)^T phi(x)) g(x)); (N, C, H, W) -> the same.

    Queries and keys have C / 8 channels, values C / 2; keys and values are max-pooled 2x2; gamma
    starts at 0.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self._keys, self._values = max(num_features // 8, 1), max(num_features // 2, 1)
        self.query = nn.Conv2d(num_features, self._keys, 1, bias=False)
        self.key = nn.Conv2d(num_features, self._keys, 1, bias=False)
        self.value = nn.Conv2d(num_features, self._values, 1, bias=False)
        self.out = nn.Conv2d(self._values, num_features, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        pool = functional.max_pool2d
        query = self.query(x).flatten(2)  # (N, C/8, HW)
        key = pool(self.key(x), 2).flatten(2)  # (N, C/8, HW/4)
        value = pool(self.value(x), 2).flatten(2)  # (N, C/2, HW/4)
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)  # (N, HW, HW/4)
        attended = value @ weights.to(value.dtype).transpose(1, 2)  # (N, C/2, HW)
        out: Tensor = self.out(attended.reshape(-1, self._values, *x.shape[2:]))
        return x + self.gamma * out


class MinibatchStddev(nn.Module):
    """(N, F) -> (N, F + 1), or maps (N, F, H, W) -> (N, F + 1, H, W); see the regularizer.

    What is appended is one number, the same for all images of a group of group_size; a batch that
    it does not divide is one group.
    """

    def __init__(self, group_size: int) -> None:
        super().__init__()
        self._group_size = group_size

    def forward(self, x: Tensor) -> Tensor:
        size = self._group_size if len(x) % self._group_size == 0 else len(x)
        groups = x.float().reshape(size, len(x) // size, -1)  # (group, N / group, FHW)
        std = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean(1)  # (N / group,)
        column = std.repeat(size).reshape(-1, *(1 for _ in x.shape[1:])).to(x.dtype)
        return torch.cat([x, column.expand(-1, 1, *x.shape[2:])], dim=1)


def check_attention(places: list[int], available: list[int]) -> None:
    """Raise a ConfigError if no block has maps of one of these sizes."""
    for place in places:
        if place not in available:
            raise ConfigError(
                f"attention: no block has maps of {place}; there are"
                f" {', '.join(map(str, available))}"
            )


def init_normal(module: nn.Module, std: float) -> None:
    """DCGAN's start: the weights of convolutions, linear layers and embeddings N(0, std)."""
    init_weights(module, lambda weight: nn.init.normal_(weight, 0.0, std))


def init_orthogonal(module: nn.Module) -> None:
    """BigGAN's start (Saxe et al., 1312.6120)."""
    init_weights(module, nn.init.orthogonal_)


def init_weights(module: nn.Module, draw: Callable[[Tensor], object]) -> None:
    """Draw the weights of convolutions, linear layers and embeddings; biases become 0.

    A gain-and-bias embedding of conditional batch norm keeps its zeros: it starts as batch norm.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Embedding) and not name.endswith("gain_and_bias"):
            draw(layer.weight)


def start_and_doublings(network: nn.Module, resolution: Resolution) -> tuple[Size, int]:
    """Size = start * 2**doublings, whose shorter side starts from 4 to 7.

    28 -> (7, 7), 2; 64 -> (4, 4), 4; (64, 96) -> (4, 6), 4. The network is who asks.

    Raises:
        ConfigError: no such factors, or nothing to double.
    """
    height, width = size_of(resolution)
    start, doublings = min(height, width), 0
    while start % 2 == 0 and start > 7:
        start, doublings = start // 2, doublings + 1
    scale = 2**doublings
    if not 4 <= start <= 7 or doublings == 0 or max(height, width) % scale:
        model = type(network).__module__.rpartition(".")[2]
        raise ConfigError(
            f"{model}: resolution {in_words(resolution)} (height x width) is not 4, 5, 6 or 7"
            " doubled once or more, with a longer side doubled as often; prepare the data with"
            " another --resolution, such as 32, 64 or 64x96"
        )
    return (height // scale, width // scale), doublings
