"""Self-Attention Generative Adversarial Networks: Zhang et al., 1805.08318.

SNGAN's residual networks with one self-attention block in each (at maps of half the image's size
for 32 pixels, of a quarter for more), conditional batch norm in G and projection in D. The paper
puts spectral norm into both: [[regularizers]] spectral_norm with both networks.
"""

from gantrain.data.resolution import Resolution, size_of
from gantrain.models import resnet
from gantrain.models._layers import Count


class Generator(resnet.Generator):
    """z (N, Z), y (N,) or None -> images (N, C, H, W) in [-1, 1].

    attention: sizes of the maps that get it; the paper's unless it is given.
    """

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        z_dim: Count = 128,
        width: Count = 64,
        attention: list[Count] | None = None,
    ) -> None:
        places = default_places(resolution) if attention is None else attention
        super().__init__(
            resolution, channels, num_classes, z_dim=z_dim, width=width, attention=places
        )


class Discriminator(resnet.Discriminator):
    """Images (N, C, H, W), y (N,) or None -> logits (N,)."""

    def __init__(
        self,
        resolution: Resolution,
        channels: int,
        num_classes: int,
        *,
        width: Count = 32,
        attention: list[Count] | None = None,
    ) -> None:
        places = default_places(resolution) if attention is None else attention
        super().__init__(resolution, channels, num_classes, width=width, attention=places)


def default_places(resolution: Resolution) -> list[int]:
    """Maps of 16 for 32 pixels, of 32 for 128; the tiniest images get none."""
    side = min(size_of(resolution))
    if side < 16:
        return []
    return [side // 2 if side < 64 else side // 4]
