"""WGAN: Arjovsky, Chintala, Bottou, Wasserstein GAN, 1701.07875, equation 3.

W1(P, Q) = max over 1-Lipschitz f of E f(x) - E f(G(z)). What keeps f Lipschitz is a regularizer:
weight_clipping is the paper's own, gradient_penalty makes WGAN-GP, spectral_norm bounds layers.
"""

from torch import Tensor

from gantrain.game import parts
from gantrain.game.parts import Game


class Objective(parts.Objective):
    """The critic's loss is minus the estimate of W1 (times its Lipschitz constant)."""

    zero_point = False  # adding a number to all logits changes nothing

    def refuses(self, game: Game) -> str | None:
        """A critic that nothing keeps Lipschitz."""
        if any(hook.keeps_lipschitz for _, hook in game.hooks):
            return None
        return (
            "a Wasserstein critic must be Lipschitz, and nothing here keeps it so; add"
            ' [[regularizers]] name = "gradient_penalty", "weight_clipping" or "spectral_norm"'
            ' with networks = ["discriminator"]'
        )

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """E f(G(z)) - E f(x)."""
        return fake_logits.mean() - real_logits.mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """-E f(G(z))."""
        return -fake_logits.mean()
