"""What the rest of the house knows of a generator."""

from typing import Literal

from torch import Tensor, nn


class GeneratorModule(nn.Module):
    """z (N, Z), y (N,) or None -> images (N, C, H, W) in [-1, 1].

    Attributes:
        z_dim: length Z of a latent. z_distribution: what latents are drawn from.
    """

    z_dim: int
    z_distribution: Literal["normal", "uniform"]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See the class."""
        raise NotImplementedError
