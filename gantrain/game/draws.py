"""The random numbers of training: drawn for the whole batch, of which each process takes its rows.

N rows of this process's batch.
"""

import math

import torch
from torch import Tensor

from gantrain.distributed import my_share, world_size
from gantrain.models._base import GeneratorModule


class Draws:
    """One seeded stream on the training device; what is drawn does not depend on the processes."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self._rng = torch.Generator(device).manual_seed(seed)

    def normal(self, num_rows: int, *shape: int) -> Tensor:
        """N(0, 1), float32 (N, *shape)."""
        size = (num_rows * world_size(), *shape)
        return my_share(torch.randn(size, generator=self._rng, device=self.device))

    def uniform(self, num_rows: int, *shape: int) -> Tensor:
        """U[0, 1), float32 (N, *shape)."""
        size = (num_rows * world_size(), *shape)
        return my_share(torch.rand(size, generator=self._rng, device=self.device))

    def integers(self, end: int, num_rows: int) -> Tensor:
        """Uniform on 0, ..., end - 1; int64 (N,)."""
        size = (num_rows * world_size(),)
        return my_share(torch.randint(end, size, generator=self._rng, device=self.device))

    def latents(
        self, generator: GeneratorModule, num_rows: int, *, truncation: float | None = None
    ) -> Tensor:
        """Z (N, Z) from the generator's distribution; a normal one conditioned on |z| <= t."""
        if generator.z_distribution == "uniform":
            return self.uniform(num_rows, generator.z_dim).mul_(2).sub_(1)
        if truncation is None:
            return self.normal(num_rows, generator.z_dim)
        bound = math.erf(truncation / math.sqrt(2))
        u = self.uniform(num_rows, generator.z_dim).mul_(2 * bound).sub_(bound)
        return torch.erfinv(u).mul_(math.sqrt(2)).clamp_(-truncation, truncation)

    def get_state(self) -> Tensor:
        """The stream's state, uint8, on the CPU."""
        return self._rng.get_state()

    def set_state(self, state: Tensor) -> None:
        """Go on from a state of a stream on the same kind of device."""
        self._rng.set_state(state)

    def restart(self, seed: int) -> None:
        """Begin another stream."""
        self._rng.manual_seed(seed)
