"""Goodfellow et al., 1406.2661, section 3: the same D, and a G that maximises E log D(G(z))."""

from torch import Tensor
from torch.nn.functional import softplus

from gantrain.objectives import minimax


class Objective(minimax.Objective):
    """The minimax game's fixed point, with a gradient where D rejects every sample."""

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """-E log D(G(z))."""
        return softplus(-fake_logits).mean()
