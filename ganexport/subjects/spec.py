"""What a network does not say of itself, checked before anything is done with it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ganinfer.drawing.model import StyleInput, TruncationInput
from ganinfer.errors import ExportError
from ganinfer.lookup import suggest

# What a distribution is called -> its name here.
DISTRIBUTIONS = {
    "normal": "normal",
    "gaussian": "normal",
    "gauss": "normal",
    "randn": "normal",
    "standard_normal": "normal",
    "n(0,1)": "normal",
    "uniform": "uniform",
    "u(-1,1)": "uniform",
}
# What the network's values are -> (scale, shift) that bring them to [-1, 1], for each channel.
RANGES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "-1:1": ((1.0,), (0.0,)),
    "0:1": ((2.0,), (-1.0,)),
    "0:255": ((2.0 / 255.0,), (-1.0,)),
    # Normalised by the mean and standard deviation of ImageNet's pixels, as torchvision has them.
    "imagenet": ((0.458, 0.448, 0.45), (-0.03, -0.088, -0.188)),
}

CHANNEL_ORDERS = ("rgb", "bgr")  # bgr: as OpenCV has them
NOISES = ("fixed", "off")


@dataclass(frozen=True)
class Spec:
    """What a network does not say of itself.

    Attributes:
        z_dim: Z, length of a latent.
        classes: names of the K classes, or K; empty if the network takes no y.
        z_distribution: "normal", N(0, 1), or "uniform", U(-1, 1).
        truncation: of the latents it was trained with; for those who ask for none.
        truncation_input: if the network takes the truncation itself, after z and y, float32 (N,)
            (StyleGAN2's psi): its range. Latents are then left as they are.
        style_input: if the network takes styles itself, after z, y and truncation: w float32
            (N, L, D) and takes_w float32 (N,), and chooses by
            torch.where(takes_w[:, None, None] > 0.5, w, styles of z): their shape.
        family: what it is called in the bundle.
        output_range: of the network's values: "-1:1", "0:1", "0:255", or "imagenet", normalised by
            that set's mean and deviation; they are brought to [-1, 1] in the graph. None expects
            [-1, 1] and looks whether the images bear it out.
        channel_order: of images of three channels: "rgb", or "bgr", which the graph turns.
        noise: what the network gets for noise that it takes or draws: "fixed", drawn once from the
            shared stream and the same for all images, or "off", zeros.
        noise_shape: of a noise that it takes after z and y: that for one image, (1, 32, 32), or a
            list of them; where it is not found by trying.
        notes: what the user has to know of the network, said when it is exported.

    Raises:
        ExportError: a value that no network can have; the message says what would do.
    """

    z_dim: int
    classes: Sequence[str] | int = ()
    z_distribution: str = "normal"
    truncation: float | None = None
    truncation_input: TruncationInput | None = None
    style_input: StyleInput | None = None
    family: str = "custom"
    output_range: str | None = None
    channel_order: str = "rgb"
    noise: str = "fixed"
    noise_shape: Sequence[int] | Sequence[Sequence[int]] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check(_is_integer(self.z_dim) and 1 <= self.z_dim <= 65536, "z_dim", self.z_dim,
               "the length of a latent, an integer from 1 to 65536")  # fmt: skip
        object.__setattr__(self, "classes", _names(self.classes))
        object.__setattr__(self, "z_distribution", _distribution(self.z_distribution))
        if self.truncation is not None:
            _check(_is_number(self.truncation) and self.truncation > 0, "truncation",
                   self.truncation, "a number above 0, such as 0.7")  # fmt: skip
            if self.z_distribution != "normal":
                raise ExportError(
                    f"truncation {self.truncation:g}: only a normal latent can be truncated, and"
                    " z_distribution is uniform; leave one of them out"
                )
        if self.output_range is not None and self.output_range not in RANGES:
            raise ExportError(
                f"output_range: found {self.output_range!r};"
                f" {suggest(str(self.output_range), list(RANGES))}"
            )
        _check(self.channel_order in CHANNEL_ORDERS, "channel_order", self.channel_order,
               " or ".join(CHANNEL_ORDERS))  # fmt: skip
        _check(self.noise in NOISES, "noise", self.noise, " or ".join(NOISES))
        parts = self.noise_shape if self.noise_listed else [self.noise_shape]
        _check(all(map(_is_shape, parts)), "noise_shape", self.noise_shape,
               "a shape, as [1,32,32], or a list of shapes")  # fmt: skip
        _check(isinstance(self.family, str) and bool(self.family), "family", self.family,
               "a name")  # fmt: skip

    @property
    def noise_shapes(self) -> list[tuple[int, ...]]:
        """Of each noise that the network takes, for one image."""
        shapes: Any = self.noise_shape if self.noise_listed else [self.noise_shape]
        return [tuple(shape) for shape in shapes if shape]

    @property
    def noise_listed(self) -> bool:
        """Does it take them as a list?"""
        return any(isinstance(part, Sequence) for part in self.noise_shape)

    @property
    def class_names(self) -> list[str]:
        """The names of the K classes."""
        assert not isinstance(self.classes, int)
        return list(self.classes)


def _names(classes: Any) -> list[str]:
    """The names of classes, which may be given as their number."""
    if _is_integer(classes):
        _check(0 <= classes <= 1_000_000, "classes", classes, "their names, or how many")
        return [str(number) for number in range(classes)]
    if isinstance(classes, range):
        return [str(number) for number in classes]
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise ExportError(f"classes: found {classes!r}; expected their names, or how many")
    for name in classes:
        _check(isinstance(name, str) and bool(name), "classes", name, "a name for each class")
    if twice := [name for name, count in Counter(classes).items() if count > 1]:
        raise ExportError(f"classes: {twice[0]!r} is there twice; give each class its own name")
    return list(classes)


def _distribution(name: Any) -> str:
    key = str(name).lower().replace(" ", "")
    if key in ("rand", "u(0,1)"):
        raise ExportError(
            f"z_distribution {name!r}: a uniform latent is drawn from U(-1, 1) here; wrap the"
            " module in one that takes it to [0, 1], (z + 1) / 2, and say uniform"
        )
    if key not in DISTRIBUTIONS:
        raise ExportError(f"z_distribution: found {name!r}; {suggest(key, list(DISTRIBUTIONS))}")
    return DISTRIBUTIONS[key]


def _check(fits: bool, name: str, found: object, expected: str) -> None:
    if not fits:
        raise ExportError(f"{name}: found {found!r}; expected {expected}")


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, Sequence) and all(
        _is_integer(size) and 1 <= size <= 65536 for size in shape
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
