"""LeCam regularisation: Tseng et al., Regularizing GANs under Limited Data, 2104.03310, equation 4.

weight * (E (s(x) - a_F)^2 + E (s(G(z)) - a_R)^2), a_R and a_F moving averages of the mean logits
of real and of generated images.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from gantrain.distributed import all_mean
from gantrain.game.parts import Game, Hooks, Step


class Regularizer(Hooks):
    """Keeps D from growing sure on little data."""

    anchors: Tensor

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 0.3,
        decay: Annotated[float, Field(ge=0, lt=1)] = 0.99,
    ) -> None:
        super().__init__()
        self._weight, self._decay = weight, decay
        self.register_buffer("anchors", torch.zeros(2))  # of real, of generated images

    def discriminator_penalty(self, step: Step) -> Tensor:
        """See the module."""
        real = (step.real.logits - self.anchors[1]).square().mean()
        fake = (step.fake.logits - self.anchors[0]).square().mean()
        return self._weight * (real + fake)

    @torch.no_grad()
    def after_discriminator_step(
        self, game: Game, real_logits: Tensor, fake_logits: Tensor
    ) -> None:
        """Move the anchors."""
        means = torch.stack([real_logits.mean(), fake_logits.mean()])
        self.anchors.lerp_(all_mean(means), 1 - self._decay)

    def stats(self) -> dict[str, float]:
        """The anchors."""
        return {"anchor_real": float(self.anchors[0]), "anchor_fake": float(self.anchors[1])}
