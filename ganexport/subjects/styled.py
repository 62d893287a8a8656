"""A StyleGAN as its graph has it: psi is an input, and so are styles in the place of z.

    styles      v_l = w_avg + psi (w - w_avg) for the first places l, w for those from a cutoff on;
                or styles that are given, in their place

N batch; Z latent; L styles of length D; K classes. y is int64 (N,).
"""

import torch
from torch import Tensor, nn

from ganinfer.drawing.model import StyleInput, TruncationInput
from gantrain.models._base import StyledGenerator
from gantrain.models._mapping import Mapping


class Styled(nn.Module):
    """z (N, Z), y (N,) if there are classes, psi (N,) unless it is fixed -> images (N, C, H, W).

    Two more may follow: styles w (N, L, D), and takes_w (N,), 1 where an image is made of them as
    they are, 0 where z is mapped.

    Args:
        mapping: z, y -> w (N, D).
        synthesis: styles (N, L, D) -> images.
        num_styles: L.
        psi: fixed, or None.
        cutoff: how many styles are drawn to the mean, from the first on; None for all.
    """

    def __init__(
        self,
        mapping: Mapping,
        synthesis: nn.Module,
        num_styles: int,
        *,
        psi: float | None = None,
        cutoff: int | None = None,
    ) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis
        self._num_styles, self._psi, self._cutoff = num_styles, psi, cutoff

    def forward(self, z: Tensor, *given: Tensor) -> Tensor:
        rest = list(given)
        y = rest.pop(0) if self.mapping.conditional else None
        psi = rest.pop(0)[:, None] if self._psi is None else self._psi
        v = self.styles(self.mapping(z, y), psi)
        if rest:
            w, takes_w = rest
            v = torch.where(takes_w[:, None, None] > 0.5, w, v)
        images: Tensor = self.synthesis(v)
        return images

    def styles(self, w: Tensor, psi: Tensor | float) -> Tensor:
        """Of w (N, D) and psi (N, 1), or a number: styles (N, L, D)."""
        drawn = self.mapping.w_avg + psi * (w - self.mapping.w_avg)
        count = self._num_styles if self._cutoff is None else self._cutoff
        parts = [drawn[:, None].expand(-1, count, -1)]
        if count < self._num_styles:
            parts.append(w[:, None].expand(-1, self._num_styles - count, -1))
        return torch.cat(parts, dim=1)


def styled(generator: StyledGenerator) -> Styled:
    """One that was trained here; it takes psi."""
    return Styled(generator.mapping, generator.synthesis, generator.num_styles).eval()


def style_input(generator: StyledGenerator) -> StyleInput:
    """What a bundle says of the styles of one that was trained here."""
    return StyleInput(num_styles=generator.num_styles, w_dim=generator.w_dim)


def psi_input(fixed: float | None = None, cutoff: int | None = None) -> TruncationInput | None:
    """What a bundle says of psi as an input; None if it is fixed."""
    if fixed is not None:
        return None
    return TruncationInput(least=0.0, largest=2.0, untruncated=1.0, num_styles=cutoff)
