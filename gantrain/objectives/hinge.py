"""Hinge loss: Lim, Ye, Geometric GAN, 1705.02894; used by SNGAN, SAGAN and BigGAN.

L_D = E max(0, 1 - s(x)) + E max(0, 1 + s(G(z))),  L_G = -E s(G(z)),  s the logit.
"""

from torch import Tensor
from torch.nn.functional import relu

from gantrain.game import parts


class Objective(parts.Objective):
    """D stops caring about samples that it gets right by a margin of 1."""

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E max(0, 1 - s(x)) + E max(0, 1 + s(G(z)))."""
        return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """-E s(G(z))."""
        return -fake_logits.mean()
