"""LSGAN: Mao et al., Least Squares Generative Adversarial Networks, 1611.04076, equation 9.

L_D = E (s(x) - 1)^2 / 2 + E s(G(z))^2 / 2,  L_G = E (s(G(z)) - 1)^2 / 2.
"""

from torch import Tensor

from gantrain.game import parts


class Objective(parts.Objective):
    """Samples far from the border are pulled to it, on whichever side they are."""

    zero_point = False  # 1 means real and 0 generated

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E (s(x) - 1)^2 / 2 + E s(G(z))^2 / 2."""
        return ((real_logits - 1).square().mean() + fake_logits.square().mean()) / 2

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """E (s(G(z)) - 1)^2 / 2."""
        return (fake_logits - 1).square().mean() / 2
