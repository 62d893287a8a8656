"""The hinge loss with a margin that follows D, as the notes on BigGAN propose.

L_D = E max(0, m - s(x)) + E max(0, m + s(G(z))),  L_G = -E s(G(z)). Samples inside the margin are
active; m <- m exp(rate (target_share - active share)), kept in [0.1, 10], holds their share.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import relu

from gantrain.distributed import all_mean
from gantrain.game import parts
from gantrain.game.parts import Game


class Objective(parts.Objective):
    """rate = 0 is the plain hinge."""

    margin: Tensor

    def __init__(
        self,
        *,
        target_share: Annotated[float, Field(gt=0, lt=1)] = 0.75,
        rate: Annotated[float, Field(ge=0)] = 0.01,
    ) -> None:
        super().__init__()
        self._target_share, self._rate = target_share, rate
        self.register_buffer("margin", torch.ones(()))

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E max(0, m - s(x)) + E max(0, m + s(G(z)))."""
        return relu(self.margin - real_logits).mean() + relu(self.margin + fake_logits).mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """-E s(G(z))."""
        return -fake_logits.mean()

    @torch.no_grad()
    def after_discriminator_step(
        self, game: Game, real_logits: Tensor, fake_logits: Tensor
    ) -> None:
        """Widen the margin when too few samples are active, narrow it when too many are."""
        signed = torch.cat([real_logits, -fake_logits])
        active = all_mean((signed < self.margin).float().mean())
        factor = torch.exp(self._rate * (self._target_share - active))
        self.margin.mul_(factor).clamp_(0.1, 10.0)

    def stats(self) -> dict[str, float]:
        """The margin."""
        return {"margin": float(self.margin)}
