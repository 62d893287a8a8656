"""The contract of an objective: two losses, and the hooks that every part may have."""

from torch import Tensor

from gantrain.game.hooks import Hooks


class Base(Hooks):
    """See the package's docstring.

    Attributes:
        paired: both losses get the differences s(x_i) - s(G(z_i)) and s(G(z_i)) - s(x_i) in the
            place of the logits.
        zero_point: logits above 0 mean real, below 0 generated.
        log_odds: D(x) = sigmoid(logit) is the probability that x is real.
    """

    paired = False
    zero_point = True
    log_odds = False

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Logits (N,) of real and generated images -> scalar."""
        raise NotImplementedError

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """Logits (N,) of generated images -> scalar."""
        raise NotImplementedError
