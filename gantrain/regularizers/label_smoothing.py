"""One-sided label smoothing: Salimans et al., 1606.03498, section 3.4.

Real images get the target t instead of 1, generated ones keep 0. With D = sigmoid(s) the
cross-entropy is t softplus(-s) + (1 - t) softplus(s) = softplus(-s) + (1 - t) s, so smoothing adds
(1 - t) E s(x) to D's loss.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from gantrain.game.parts import Game, Hooks, Step


class Regularizer(Hooks):
    """D is not rewarded for being surer than real_target."""

    def __init__(self, *, real_target: Annotated[float, Field(gt=0.5, lt=1)] = 0.9) -> None:
        super().__init__()
        self._real_target = real_target

    def refuses(self, game: Game) -> str | None:
        """Objectives whose logits are no log-odds."""
        if not game.objective.log_odds:
            return "it needs an objective with D = sigmoid(logit), such as minimax or nonsaturating"
        return None

    def discriminator_penalty(self, step: Step) -> Tensor:
        """(1 - t) E s(x)."""
        return (1 - self._real_target) * step.real.logits.mean()
