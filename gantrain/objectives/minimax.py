"""The zero-sum game of Goodfellow et al., Generative Adversarial Nets, 1406.2661, equation 1.

min_G max_D V(D, G) = E log D(x) + E log(1 - D(G(z))),  D = sigmoid(logit). At p_g = p_data the
best D is 1/2 everywhere and V = -log 4. G's gradient vanishes where D is sure; see nonsaturating.
"""

from torch import Tensor
from torch.nn.functional import softplus

from gantrain.game import parts


class Objective(parts.Objective):
    """log D = -softplus(-s) and log(1 - D) = -softplus(s): no exponential is ever taken twice."""

    log_odds = True

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-V."""
        return softplus(-real_logits).mean() + softplus(fake_logits).mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """E log(1 - D(G(z)))."""
        return -softplus(fake_logits).mean()
