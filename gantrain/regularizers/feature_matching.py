"""Feature matching: Salimans et al., 1606.03498, section 3.1: ||E f(x) - E f(G(z))||^2.

f is what D's head judges by. G's own loss is replaced by it, as in the paper, or kept beside it.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from gantrain.distributed import all_mean
from gantrain.game.parts import Hooks, Step


class Regularizer(Hooks):
    """G matches the statistics that D found telling, instead of fooling the present D."""

    sees_real = True

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1.0,
        generator_loss: Literal["replaced", "kept"] = "replaced",
    ) -> None:
        super().__init__()
        self._weight = weight
        self.replaces_generator_loss = generator_loss == "replaced"

    def generator_penalty(self, step: Step) -> Tensor:
        """See the module."""
        real = all_mean(step.real.features.detach().float().mean(0))
        fake = all_mean(step.fake.features.float().mean(0))
        return self._weight * (real - fake).square().sum()
