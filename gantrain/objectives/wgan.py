"""WGAN: Arjovsky, Chintala, Bottou, Wasserstein GAN, 1701.07875, equation 3.

W1(P, Q) = max over 1-Lipschitz f of E f(x) - E f(G(z)). What keeps f Lipschitz is a regularizer:
weight_clipping is the paper's own, gradient_penalty makes WGAN-GP, spectral_norm bounds layers.
"""

from torch import Tensor

from gantrain.objectives._base import Base


class Objective(Base):
    """The critic's loss is minus the estimate of W1 (times its Lipschitz constant)."""

    lipschitz = True

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E f(G(z)) - E f(x)."""
        return fake_logits.mean() - real_logits.mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """-E f(G(z))."""
        return -fake_logits.mean()
