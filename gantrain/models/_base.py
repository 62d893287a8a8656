"""What the rest of the house knows of a generator and of a discriminator."""

from typing import Literal

from torch import Tensor, nn

# Layers in which one example's output depends on the others.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class GeneratorModule(nn.Module):
    """z (N, Z), y (N,) or None -> images (N, C, H, W) in [-1, 1].

    Attributes:
        z_dim: length Z of a latent. z_distribution: what latents are drawn from.
        num_classes: K; 0 if it is unconditional and y is not looked at.
    """

    z_dim: int
    num_classes: int
    z_distribution: Literal["normal", "uniform"]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See the class."""
        raise NotImplementedError


class DiscriminatorModule(nn.Module):
    """Images (N, C, H, W) in [-1, 1], y (N,) or None -> logits (N,).

    Attributes:
        head: features (N, F), y -> logits (N,). Regularizers may put another in its place.
    """

    head: nn.Module

    def features(self, images: Tensor) -> Tensor:
        """Images -> the features (N, F) that the head judges by."""
        raise NotImplementedError

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """See the class."""
        logits: Tensor = self.head(self.features(images), y)
        return logits


def batch_norm_of(network: nn.Module) -> str | None:
    """The name of the first batch norm in a network."""
    return next((n for n, layer in network.named_modules() if isinstance(layer, BATCH_NORMS)), None)
