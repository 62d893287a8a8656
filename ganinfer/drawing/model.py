"""What a generator takes and gives, as a bundle says it."""

from typing import Annotated, Literal

from pydantic import Field

from ganinfer.record import Record

Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1, le=16384)]  # pixels


class TruncationInput(Record):
    """The range of a graph's input "truncation", and its value for those who ask for none.

    statistics: truncations that batch-norm statistics were taken for, if any.
    num_styles: how many styles are drawn to the mean, from the first on; None for all.
    """

    least: float
    largest: float
    untruncated: float
    statistics: list[float] = Field(default_factory=list)
    num_styles: Count | None = None


class StyleInput(Record):
    """The shape of a graph's input "w", styles float32 (N, L, D), which the synthesis takes.

    num_styles: L, inputs of the synthesis that a style goes to. w_dim: D, length of a style.
    """

    num_styles: Annotated[int, Field(ge=1, le=1024)]
    w_dim: Annotated[int, Field(ge=1, le=65536)]


class Model(Record):
    """What the generator takes and gives. classes is empty in an unconditional model.

    resolution: the side of square images; of others (height, width).
    channels: 1 grey, 3 RGB, 4 RGBA; 2 are planes that no kind of picture is known for.
    truncation_modes: "resample" and "scale" change the latents; in mode "network" the generator
        does it all, as StyleGAN2 does with psi.
    default_truncation: what it was trained with, for those who ask for none; of mode "resample".
    truncation_input: None if the graph has no such input.
    style_input: None if the graph takes no w, as of all but StyleGANs.
    class_input: "weights" if y is a weight for each class, and classes can be mixed.
    macs: multiply-accumulates of one image in the fp32 graph; bundles of older versions do not say.
    """

    family: str
    resolution: Side | tuple[Side, Side]
    channels: Literal[1, 2, 3, 4]
    classes: list[str]
    z_dim: Annotated[int, Field(ge=1, le=65536)]
    z_distribution: Literal["normal", "uniform"]
    truncation_modes: list[Literal["resample", "scale", "network"]]
    default_truncation: Annotated[float, Field(gt=0)] | None = None
    truncation_input: TruncationInput | None = None
    style_input: StyleInput | None = None
    class_input: Literal["index", "weights"] = "index"
    macs: Count | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: (H, W, C)."""
        size = self.resolution
        height, width = (size, size) if isinstance(size, int) else size
        return (height, width, self.channels)

    @property
    def size(self) -> str:
        """The same in a message: "24x40x3"."""
        return "x".join(map(str, self.shape))

    def image_shape(self, n: int) -> tuple[int, int, int, int]:
        """Of n images: (N, H, W, C)."""
        return (n, *self.shape)
