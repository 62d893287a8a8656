"""What the shapes of a published StyleGAN2 say, and the generator of such shapes."""

from dataclasses import dataclass

from ganexport.subjects.styled import Styled
from gantrain.models._mapping import Mapping
from gantrain.models._synthesis import Synthesis


@dataclass(frozen=True)
class Plan:
    """What the shapes say of a generator.

    Attributes:
        z_dim: Z. num_classes: K, 0 if there are none. embedding_dim: of a class, 0 if K is 0.
        widths: of what the layers of the mapping network give; the last is that of w.
        channels: of the maps of 4x4, 8x8, ... pixels. image_channels: of the image.
    """

    z_dim: int
    num_classes: int
    embedding_dim: int
    widths: list[int]
    channels: list[int]
    image_channels: int

    @property
    def num_styles(self) -> int:
        """L: of each layer, and of the last image."""
        return 2 * len(self.channels)


class Generator(Styled):
    """z (N, Z), y (N,) if there are classes, ... -> images (N, C, H, W), nominally on [-1, 1].

    Args:
        plan: see there.
        psi, cutoff: see `Styled`.
        clamp: of every layer, inf for none.
    """

    def __init__(
        self, plan: Plan, *, psi: float | None, clamp: float, cutoff: int | None = None
    ) -> None:
        mapping = Mapping(plan.z_dim, plan.num_classes, plan.embedding_dim, plan.widths)
        synthesis = Synthesis(plan.channels, plan.image_channels, plan.widths[-1], clamp=clamp)
        super().__init__(mapping, synthesis, plan.num_styles, psi=psi, cutoff=cutoff)
