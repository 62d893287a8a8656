"""Historical averaging: Salimans et al., 1606.03498, section 3.3.

weight * ||theta - (1/t) sum_i theta_i||^2 for each player, the mean over its past parameters.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from gantrain.game.parts import Game, Hooks, Step


class Regularizer(Hooks):
    """Holds players that circle each other near the middle of their orbit."""

    num_steps: Tensor

    def __init__(self, *, weight: Annotated[float, Field(gt=0)] = 1e-4) -> None:
        super().__init__()
        self._weight = weight
        self.register_buffer("num_steps", torch.zeros(()))
        self.generator_mean, self.discriminator_mean = _Mean(), _Mean()

    def discriminator_penalty(self, step: Step) -> Tensor:
        """For D."""
        return self._weight * self.discriminator_mean.distance(step.game.discriminator)

    def generator_penalty(self, step: Step) -> Tensor:
        """For G."""
        return self._weight * self.generator_mean.distance(step.game.generator)

    @torch.no_grad()
    def after_discriminator_step(
        self, game: Game, real_logits: Tensor, fake_logits: Tensor
    ) -> None:
        """Take the present parameters into the means."""
        self.num_steps += 1
        self.generator_mean.update(game.generator, 1 / float(self.num_steps))
        self.discriminator_mean.update(game.discriminator, 1 / float(self.num_steps))


class _Mean(nn.Module):
    """The mean of a network's past parameters, in buffers that are made at its first sight."""

    def distance(self, network: nn.Module) -> Tensor:
        """||theta - mean||^2; 0 before the first update."""
        means = list(self.buffers())
        if not means:
            return torch.zeros((), device=next(network.parameters()).device)
        pairs = zip(network.parameters(), means, strict=True)
        return torch.stack([(p - mean).square().sum() for p, mean in pairs]).sum()

    def update(self, network: nn.Module, rate: float) -> None:
        """Move the mean: mean <- mean + rate (theta - mean)."""
        parameters = [p.detach() for p in network.parameters()]
        if not list(self.buffers()):
            for n, parameter in enumerate(parameters):
                self.register_buffer(f"p{n}", parameter.clone())
        torch._foreach_lerp_(list(self.buffers()), parameters, rate)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        for name in state:
            if name.startswith(prefix) and not hasattr(self, name.removeprefix(prefix)):
                self.register_buffer(name.removeprefix(prefix), torch.empty_like(state[name]))
        super()._load_from_state_dict(state, prefix, *rest)
