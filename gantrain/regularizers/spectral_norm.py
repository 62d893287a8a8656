"""Spectral normalization: Miyato et al., 1802.05957, equations 8 and 9, algorithm 1.

W_SN = W / sigma(W), so that each layer is 1-Lipschitz; sigma, the largest singular value, by one
power iteration a training forward: v <- W^T u / ||.||, u <- W v / ||.||, sigma = u^T W v.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gantrain.game.parts import Game, Hooks, in_float32
from gantrain.models._base import DiscriminatorModule, GeneratorModule

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class Regularizer(Hooks):
    """Every convolution and linear layer of the networks named; in D, the class embedding too."""

    changes_last = True  # a layer that another regularizer adds is normalised too

    def __init__(
        self,
        *,
        networks: Annotated[list[Literal["generator", "discriminator"]], Field(min_length=1)] = [  # noqa: B006
            "discriminator"
        ],
        eps: Annotated[float, Field(gt=0)] = 1e-6,
    ) -> None:
        super().__init__()
        self.networks, self._eps = networks, eps
        self.keeps_lipschitz = "discriminator" in networks

    def change_generator(self, generator: GeneratorModule) -> None:
        """Normalise its layers."""
        if "generator" in self.networks:
            normalize(generator, LAYERS, self._eps)

    def change_discriminator(self, discriminator: DiscriminatorModule) -> None:
        """Normalise its layers and embeddings."""
        if "discriminator" in self.networks:
            normalize(discriminator, (*LAYERS, nn.Embedding), self._eps)

    def refuses(self, game: Game) -> str | None:
        """A network without such layers."""
        for name in self.networks:
            layers = getattr(game, name).modules()
            if not any(parametrize.is_parametrized(layer) for layer in layers):
                return f"the {name} has no layer of torch.nn to normalise; leave it out"
        return None


def normalize(network: nn.Module, kinds: tuple[type[nn.Module], ...], eps: float = 1e-6) -> None:
    """Put the weights of all layers of these kinds under spectral norm."""
    for layer in list(network.modules()):
        if isinstance(layer, kinds) and isinstance(layer.weight, nn.Parameter):
            weight = layer.weight
            transposed = isinstance(layer, nn.ConvTranspose2d)
            parametrize.register_parametrization(
                layer, "weight", SpectralNorm(weight, eps, out_dim=1 if transposed else 0)
            )


class SpectralNorm(nn.Module):
    """Weight -> weight / sigma; buffers u (rows,) and v (columns,) are the singular vectors."""

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, eps: float, *, out_dim: int) -> None:
        super().__init__()
        self._eps, self._out_dim = eps, out_dim
        matrix = self._matrix(weight)
        self.register_buffer("u", nn.functional.normalize(torch.randn(matrix.shape[0]), dim=0))
        self.register_buffer("v", nn.functional.normalize(torch.randn(matrix.shape[1]), dim=0))
        for _ in range(15):
            self._iterate(matrix.detach())

    def forward(self, weight: Tensor) -> Tensor:
        # In bfloat16 the power iteration would not converge.
        with in_float32(weight.device):
            matrix = self._matrix(weight)
            if self.training:
                self._iterate(matrix.detach())
            # Clones, because the next forward changes the buffers under this one's graph.
            u, v = self.u.clone(), self.v.clone()
            return weight / torch.dot(u, matrix @ v).clamp_min(self._eps)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Any weight may be the unnormalised one."""
        return weight

    def _matrix(self, weight: Tensor) -> Tensor:
        """Rows are output channels."""
        return weight.transpose(0, self._out_dim).flatten(1)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        _turn(self.v, matrix.T @ self.u)
        _turn(self.u, matrix @ self.v)


def _turn(vector: Tensor, direction: Tensor) -> None:
    """Make the unit vector point there; a weight of 0 has no direction, and must not erase it."""
    norm = torch.linalg.vector_norm(direction)
    vector.copy_(torch.where(norm > 0, direction / norm.clamp_min(1e-30), vector))
