"""Orthogonal regularisation: Brock, Donahue, Simonyan, 1809.11096, equation 3.

weight * sum over layers of ||W W^T * (1 - I)||_F^2, rows of W the filters: only the angles between
filters are regularised, not their norms. It makes a generator amenable to truncation.
"""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gantrain.game.parts import Game, Hooks, Step, in_float32
from gantrain.regularizers.spectral_norm import LAYERS, SpectralNorm


class Regularizer(Hooks):
    """Under spectral norm, the unnormalised weights are meant, as in the paper's code."""

    def __init__(
        self,
        *,
        weight: Annotated[float, Field(gt=0)] = 1e-4,
        networks: Annotated[list[Literal["generator", "discriminator"]], Field(min_length=1)] = [  # noqa: B006
            "generator"
        ],
    ) -> None:
        super().__init__()
        self._weight, self._networks = weight, networks

    def refuses(self, game: Game) -> str | None:
        """A network without such layers."""
        for name in self._networks:
            if not any(isinstance(layer, LAYERS) for layer in getattr(game, name).modules()):
                return f"the {name} has no layer of torch.nn with filters to compare; leave it out"
        return None

    def discriminator_penalty(self, step: Step) -> Tensor | float:
        """See the module; 0 unless D is named."""
        named = "discriminator" in self._networks
        return self._weight * non_orthogonality(step.game.discriminator) if named else 0.0

    def generator_penalty(self, step: Step) -> Tensor | float:
        """See the module; 0 unless G is named."""
        named = "generator" in self._networks
        return self._weight * non_orthogonality(step.game.generator) if named else 0.0


def non_orthogonality(network: nn.Module) -> Tensor:
    """Sum of squared inner products of different filters of a layer, over the layers."""
    device = next(network.parameters()).device
    total = torch.zeros((), device=device)
    # In bfloat16 the products of orthogonal filters would be far from 0.
    with in_float32(device):
        for layer in network.modules():
            if isinstance(layer, LAYERS):
                weight: Tensor = layer.weight
                if parametrize.is_parametrized(layer, "weight"):
                    held: Any = layer.parametrizations
                    if isinstance(held.weight[0], SpectralNorm):
                        weight = held.weight.original
                if isinstance(layer, nn.ConvTranspose2d):
                    weight = weight.transpose(0, 1)
                filters = weight.flatten(1)
                products = filters @ filters.T
                total = total + products.square().sum() - products.diagonal().square().sum()
    return total
