"""Relativistic pairing GAN: Jolicoeur-Martineau, 1807.00734; the game of R3GAN, 2501.05441.

L_D = E f(s(G(z)) - s(x)),  L_G = E f(s(x) - s(G(z))),  f = softplus. R3GAN adds r1 and r2.
"""

from torch import Tensor
from torch.nn.functional import softplus

from gantrain.game import parts


class Objective(parts.Objective):
    """D need only tell each generated image from the real one beside it: no mode can be left."""

    paired = True
    zero_point = False  # adding a number to all logits changes nothing
    sees_real = True

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E softplus(-(s(x) - s(G(z)))); the argument is that difference already."""
        return softplus(-real_logits).mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """E softplus(-(s(G(z)) - s(x))); the argument is that difference already."""
        return softplus(-fake_logits).mean()
