"""The network of FID and the Inception score: Inception-v3 in TensorFlow's graph of 2015-12-05.

The weights are those that pytorch-fid published (release `fid_weights`), under torchvision's names.
The graph differs from torchvision's Inception-v3 (Szegedy et al., 1512.00567) in these layers:
- the pool branches of Mixed_5b-5d, 6b-6e and 7b average without counting the padding;
- the pool branch of Mixed_7c takes the maximum, where the paper averages;
- fc gives 1008 logits, and there is no auxiliary head.
Batch norm's eps is 0.001 in both.

N images, C channels, H x W pixels.
"""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from platformdirs import user_cache_path
from torch import Tensor, nn

from ganinfer.errors import ConfigError, DataError, DataNotFound
from ganinfer.files import sha256_file
from ganinfer.host.fetching import fetch_file
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.extractors._base import Seen
from gantrain.extractors._pyramid import Pyramid, freeze
from gantrain.extractors._resize import RESIZERS, normalize, resize

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_URL = (
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{INCEPTION_FILE}"
)
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SPATIAL_CHANNELS = 7  # as sFID takes them


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU; 1x1 and stride 1 unless told, the padding keeps the size."""

    def __init__(
        self,
        narrow: int,
        wide: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: str = "same",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(narrow, wide, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(wide, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


# TensorFlow averages over the pixels that are there.
_average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)
_shrink = partial(F.max_pool2d, kernel_size=3, stride=2)
_halving = partial(ConvNorm, kernel=3, stride=2, padding="valid")


class BlockA(nn.Module):
    """35x35: 1x1, 5x5, twice 3x3, and a pool."""

    def __init__(self, narrow: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(narrow, 64)
        self.branch5x5_1 = ConvNorm(narrow, 48)
        self.branch5x5_2 = ConvNorm(48, 64, 5)
        self.branch3x3dbl_1 = ConvNorm(narrow, 64)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3)
        self.branch_pool = ConvNorm(narrow, pooled)

    def forward(self, x: Tensor) -> Tensor:
        large = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), large, double, self.branch_pool(_average(x))], 1)


class BlockB(nn.Module):
    """35x35 -> 17x17."""

    def __init__(self, narrow: int) -> None:
        super().__init__()
        self.branch3x3 = _halving(narrow, 384)
        self.branch3x3dbl_1 = ConvNorm(narrow, 64)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3)
        self.branch3x3dbl_3 = _halving(96, 96)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, _shrink(x)], 1)


class BlockC(nn.Module):
    """17x17: 1x1, 7x7 in two halves, twice 7x7 in four, and a pool."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = ConvNorm(768, 192)
        self.branch7x7_1 = ConvNorm(768, inner)
        self.branch7x7_2 = ConvNorm(inner, inner, row)
        self.branch7x7_3 = ConvNorm(inner, 192, column)
        self.branch7x7dbl_1 = ConvNorm(768, inner)
        self.branch7x7dbl_2 = ConvNorm(inner, inner, column)
        self.branch7x7dbl_3 = ConvNorm(inner, inner, row)
        self.branch7x7dbl_4 = ConvNorm(inner, inner, column)
        self.branch7x7dbl_5 = ConvNorm(inner, 192, row)
        self.branch_pool = ConvNorm(768, 192)

    def forward(self, x: Tensor) -> Tensor:
        large = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), large, double, self.branch_pool(_average(x))], 1)


class BlockD(nn.Module):
    """17x17 -> 8x8."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(768, 192)
        self.branch3x3_2 = _halving(192, 320)
        self.branch7x7x3_1 = ConvNorm(768, 192)
        self.branch7x7x3_2 = ConvNorm(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvNorm(192, 192, (7, 1))
        self.branch7x7x3_4 = _halving(192, 192)

    def forward(self, x: Tensor) -> Tensor:
        small = self.branch3x3_2(self.branch3x3_1(x))
        large = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([small, self.branch7x7x3_4(large), _shrink(x)], 1)


class BlockE(nn.Module):
    """8x8: 1x1, two branches that fork at their ends, and a pool of either kind."""

    def __init__(self, narrow: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        row, column = (1, 3), (3, 1)
        self.branch1x1 = ConvNorm(narrow, 320)
        self.branch3x3_1 = ConvNorm(narrow, 384)
        self.branch3x3_2a = ConvNorm(384, 384, row)
        self.branch3x3_2b = ConvNorm(384, 384, column)
        self.branch3x3dbl_1 = ConvNorm(narrow, 448)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3)
        self.branch3x3dbl_3a = ConvNorm(384, 384, row)
        self.branch3x3dbl_3b = ConvNorm(384, 384, column)
        self.branch_pool = ConvNorm(narrow, 192)
        self._pool = pool

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        singles = [self.branch3x3_2a(single), self.branch3x3_2b(single)]
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        doubles = [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        pooled = self.branch_pool(self._pool(x))
        return torch.cat([self.branch1x1(x), *singles, *doubles, pooled], 1)


class InceptionV3(nn.Module):
    """The network; its state dict has the published names."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _halving(3, 32)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3, padding="valid")
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3, padding="valid")
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(128)
        self.Mixed_6c = BlockC(160)
        self.Mixed_6d = BlockC(160)
        self.Mixed_6e = BlockC(192)
        self.Mixed_7a = BlockD()
        self.Mixed_7b = BlockE(1280, _average)
        self.Mixed_7c = BlockE(2048, _maximum)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See images.

        Args:
            images: float32 (N, 3, 299, 299) on [-1, 1].

        Returns:
            features: (N, 2048), TensorFlow's pool_3.
            logits: (N, 1008) without the bias, as the Inception score has always been taken.
            spatial: (N, 7 * 17 * 17), the first channels of TensorFlow's mixed_6/conv.
        """
        *_, middle, last = self.maps(images)
        # mixed_6 is Mixed_6d, and mixed_6/conv its branch1x1, which stands first.
        spatial = middle[:, :SPATIAL_CHANNELS].flatten(1)
        features = last.mean((2, 3))
        return features, features @ self.fc.weight.T, spatial

    def maps(self, images: Tensor) -> list[Tensor]:
        """float32 (N, 3, 299, 299) on [-1, 1] -> maps of 71, 35, 17 and 8 pixels.

        They have 192, 288, 768 and 2048 channels.
        """
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        first = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_shrink(x)))
        second = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(_shrink(first))))
        third = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(second))))
        last = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(third))))
        return [first, second, third, last]


class InceptionPyramid(Pyramid):
    """Four maps of the network, behind TensorFlow's resizer."""

    widths = (192, 288, 768, 2048)

    def __init__(self) -> None:
        super().__init__()
        self.network = _frozen(InceptionV3())

    def forward(self, images: Tensor) -> list[Tensor]:
        """See `Pyramid`."""
        pixels = normalize(resize((images + 1) * 127.5, "tf"), "tf").expand(-1, 3, -1, -1)
        return self.network.maps(pixels)

    def learn(
        self,
        dataset: Dataset,  # noqa: ARG002
        device: torch.device,  # noqa: ARG002
        progress: Progress | None = None,  # noqa: ARG002
    ) -> None:
        """Those that were published."""
        published = _frozen(load_network(_checked_weights()[0]))
        self.network.load_state_dict(published.state_dict())


def _frozen(network: InceptionV3) -> InceptionV3:
    """Without what comes behind the maps."""
    del network.fc
    return freeze(network)


class InceptionExtractor:
    """The network with a resizer before it."""

    name = "inception"
    sees_classes = False

    def __init__(
        self, network: InceptionV3, resizer: str, *, sha256: str, device: torch.device
    ) -> None:
        """Wrap a network whose weights have this sha256; resizer is one of RESIZERS."""
        # A CPU is twice as fast without batch norms, with few images at once, and with the channels
        # of a pixel side by side.
        on_cpu = device.type == "cpu"
        self._at_once = 10 if on_cpu else 100
        self._layout = torch.channels_last if on_cpu else torch.contiguous_format
        self._network = freeze(copy.deepcopy(network)).to(device)
        self._network.to(memory_format=self._layout)  # type: ignore[call-overload]
        self._kind, self.device = resizer, device
        self.resizer = RESIZERS[resizer]
        self.key = f"inception folded {resizer} {sha256} {device.type}"

    def __call__(self, images: Tensor) -> Seen:
        """float32 (N, C, H, W) on [0, 255], C = 1 or 3 -> Seen.

        Raises:
            DataError: they are points, or have another number of channels.
        """
        shape = tuple(images.shape[1:])
        if shape[1:] == (1, 1):
            raise DataError(
                f"inception: found points of {shape[0]} numbers, expected images; points need no"
                " network: leave --extractor inception out"
            )
        if shape[0] not in (1, 3):
            raise DataError(
                f"inception: found images of {shape[0]} channels, expected 1 or 3; give --extractor"
                " a network that takes them"
            )
        seen = [self._see(some) for some in torch.split(images, self._at_once)]
        return Seen(*(torch.cat(column) for column in zip(*seen, strict=True)))

    def _see(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = normalize(resize(images, self._kind), self._kind).expand(-1, 3, -1, -1)
        pixels = pixels.contiguous(memory_format=self._layout)
        # TF32 would show in the figures.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            seen: tuple[Tensor, Tensor, Tensor] = self._network(pixels)
            return seen


def open_inception(*, resizer: str = "tf", device: torch.device) -> InceptionExtractor:
    """The network with its weights, from the user's cache folder.

    Args:
        resizer: "tf", "clean" or "pytorch", how images come to 299x299.
        device: where it runs.

    Raises:
        ConfigError: there is no such resizer.
        DataError: the weights are missing, or not those.
    """
    if resizer not in RESIZERS:
        raise ConfigError(f"--resizer: there is no {resizer!r}; expected one of {list(RESIZERS)}")
    path, sha256 = _checked_weights()
    return InceptionExtractor(load_network(path), resizer, sha256=sha256, device=device)


def _checked_weights() -> tuple[Path, str]:
    """The file of the weights, and its sha256.

    Raises:
        DataError: it is missing, or another one.
    """
    path = _weights_path()
    if not path.exists():
        raise DataNotFound(
            f"{path}: the weights of Inception are not there; run: gan fetch inception, or, with"
            " the file at hand: gan fetch inception --from FILE"
        )
    found = sha256_file(path)
    if found != INCEPTION_SHA256:
        raise DataError(
            f"{path}: sha256 {found}, expected {INCEPTION_SHA256}; run: gan fetch inception"
        )
    return path, found


def load_network(path: Path) -> InceptionV3:
    """The network with the weights of a file, on the CPU; only tensors are read, no code.

    Raises:
        DataError: its names and shapes are not those that were published.
    """
    with torch.device("meta"):  # no memory, and no random numbers drawn, for what is replaced
        network = InceptionV3()
    state = torch.load(path, weights_only=True, map_location="cpu")
    found, expected = (
        {f"{n} {tuple(t.shape)}" for n, t in tensors.items() if "num_batches_tracked" not in n}
        for tensors in (state, network.state_dict())
    )
    if found != expected:
        missing, foreign = sorted(expected - found), sorted(found - expected)
        raise DataError(
            f"{path}: tensors missing: {len(missing)} {missing[:2]}, unknown: {len(foreign)}"
            f" {foreign[:2]}; expected those of {INCEPTION_FILE}; run: gan fetch inception"
        )
    network.load_state_dict(dict(state), strict=True, assign=True)
    return network


def fetch_inception(
    source: Path | None = None,
    *,
    url: str = INCEPTION_URL,
    sha256: str = INCEPTION_SHA256,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Bring the weights into the user's cache folder, if they are not there.

    Args:
        source: the file, brought by hand; downloaded if None.
        url: where it is downloaded from.
        sha256: what it must have.
        progress: called with (bytes done, bytes in all).

    Returns:
        Where the weights are.

    Raises:
        DataError: the file cannot be read, downloaded or kept, or is another; nothing is left
            behind.
    """
    return fetch_file(
        _weights_path(),
        source or url,
        sha256,
        remedy="gan fetch inception --from FILE",
        progress=progress,
    )


def _weights_path() -> Path:
    return user_cache_path("ganpipe") / "weights" / INCEPTION_FILE
