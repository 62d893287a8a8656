"""What the rest of the house knows of a generator and of a discriminator."""

from typing import Literal

import torch
from torch import Tensor, nn

from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.models._mapping import Mapping

# Layers in which one example's output depends on the others.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class GeneratorModule(nn.Module):
    """z (N, Z), y (N,) or None -> images (N, C, H, W), nominally in [-1, 1].

    Attributes:
        z_dim: length Z of a latent. z_distribution: what latents are drawn from.
        num_classes: K; 0 if it is unconditional and y is not looked at.
        only_square: it and its discriminator are made for a side, never for (height, width).
    """

    z_dim: int
    num_classes: int
    z_distribution: Literal["normal", "uniform"]
    only_square: bool = True

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """See the class."""
        raise NotImplementedError


class StyledGenerator(GeneratorModule):
    """A generator that first makes styles of z, and then images of styles, as StyleGANs do.

    Attributes:
        mapping: z, y -> w (N, D), and the mean of w.
        synthesis: styles (N, L, D) -> images.
        num_styles, w_dim: L and D.
        mixing: of how many images the styles are those of two latents, in training.
    """

    mapping: Mapping
    synthesis: nn.Module
    num_styles: int
    w_dim: int
    mixing: float = 0.0

    def styles(self, z: Tensor, y: Tensor | None = None, *, psi: float = 1.0) -> Tensor:
        """Latents z, y -> styles (N, L, D), drawn to their mean where psi is below 1."""
        w: Tensor = self.mapping(z, y)
        w = self.mapping.w_avg + psi * (w - self.mapping.w_avg) if psi != 1 else w
        styles = w[:, None].expand(-1, self.num_styles, -1)
        if not self.training or not self.mixing:
            return styles
        other: Tensor = self.mapping(torch.randn_like(z), y)
        first = torch.randint(1, self.num_styles, (len(z), 1), device=z.device)
        mixed = torch.rand(len(z), 1, device=z.device) < self.mixing
        places = torch.arange(self.num_styles, device=z.device) >= first
        return torch.where((mixed & places)[:, :, None], other[:, None], styles)

    def forward(self, z: Tensor, y: Tensor | None = None, *, psi: float = 1.0) -> Tensor:
        """See the class, and `styles`."""
        images: Tensor = self.synthesis(self.styles(z, y, psi=psi))
        return images


class DiscriminatorModule(nn.Module):
    """Images (N, C, H, W) in [-1, 1], y (N,) or None -> logits (N,), or (N, L) of L judges.

    Attributes:
        head: features (N, F), y -> those logits. Regularizers may put another in its place.
    """

    head: nn.Module

    def learn(
        self, dataset: Dataset, device: torch.device, progress: Progress | None = None
    ) -> None:
        """Take what is needed of the dataset, once, before training begins.

        progress: called with (what is being done, done, in all).
        """

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
