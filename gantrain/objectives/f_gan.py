"""f-GAN: Nowozin, Cseke, Tomioka, 1606.00709, equations 4 and 6, tables 2 and 6.

D_f(P || Q) >= E_P g_f(V(x)) - E_Q f*(g_f(V(G(z)))), with V the logit, g_f the activation that
keeps it in the domain of f*, and f* the convex conjugate of f; equal for the best V.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from gantrain.game import parts

Divergence = Literal[
    "total_variation",
    "kl",
    "reverse_kl",
    "pearson",
    "neyman",
    "squared_hellinger",
    "jensen_shannon",
    "gan",
]

LOG_2 = 0.6931471805599453

# g_f(v), and f*(g_f(v)) written out, so that no exponential meets its logarithm.
ACTIVATION: dict[str, Callable[[Tensor], Tensor]] = {
    "total_variation": lambda v: torch.tanh(v) / 2,
    "kl": lambda v: v,
    "reverse_kl": lambda v: -torch.exp(-v),
    "pearson": lambda v: v,
    "neyman": lambda v: -torch.expm1(-v),
    "squared_hellinger": lambda v: -torch.expm1(-v),
    "jensen_shannon": lambda v: LOG_2 - softplus(-v),
    "gan": lambda v: -softplus(-v),
}
CONJUGATE: dict[str, Callable[[Tensor], Tensor]] = {
    "total_variation": lambda v: torch.tanh(v) / 2,
    "kl": lambda v: torch.exp(v - 1),
    "reverse_kl": lambda v: v - 1,
    "pearson": lambda v: v.square() / 4 + v,
    "neyman": lambda v: -2 * torch.expm1(-v / 2),
    "squared_hellinger": torch.expm1,
    "jensen_shannon": lambda v: softplus(v) - LOG_2,
    "gan": softplus,
}


class Objective(parts.Objective):
    """G maximises E_Q g_f(V) (section 3.2's step, whose gradient does not vanish early)."""

    def __init__(self, *, divergence: Divergence = "kl") -> None:
        super().__init__()
        self._activation, self._conjugate = ACTIVATION[divergence], CONJUGATE[divergence]
        self.log_odds = divergence == "gan"
        self.zero_point = divergence != "kl"  # whose threshold f'(1) is 1

    def discriminator_loss(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Minus the bound on D_f."""
        return self._conjugate(fake_logits).mean() - self._activation(real_logits).mean()

    def generator_loss(self, fake_logits: Tensor) -> Tensor:
        """-E g_f(V(G(z)))."""
        return -self._activation(fake_logits).mean()
