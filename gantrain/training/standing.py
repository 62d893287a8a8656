"""Standing statistics: Brock, Donahue, Simonyan, 1809.11096, appendix I.

Averaged weights do not fit batch-norm statistics that were collected by other weights, nor do
those of whole latents fit truncated ones. So they are collected anew: in train mode, over batches
of random size and labels, each batch counting alike.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gantrain.distributed import alone
from gantrain.game.draws import Draws
from gantrain.models._base import GeneratorModule


def standing_statistics(
    network: GeneratorModule,
    *,
    num_batches: int = 16,
    batch_size: int = 64,
    truncation: float | None = None,
    seed: int = 0,
) -> None:
    """Replace the running statistics of every batch norm of G; it ends in eval mode.

    Args:
        network: a generator; its weights stay as they are.
        num_batches: at least 16, says the paper's code.
        batch_size: of the largest; sizes are uniform on [batch_size / 2, batch_size].
        truncation: of the latents, which the statistics will be true for.
        seed: of latents, labels and sizes, so that the same weights give the same statistics.
    """
    draws = Draws(seed, next(network.parameters()).device)
    sizes = torch.randint(
        max(batch_size // 2, 2),
        max(batch_size, 2) + 1,
        (num_batches,),
        generator=torch.Generator().manual_seed(seed),
    )

    def batches() -> Iterable[tuple[Tensor, Tensor | None]]:
        for size in sizes.tolist():
            y = draws.integers(network.num_classes, size) if network.num_classes else None
            yield draws.latents(network, size, truncation=truncation), y

    with alone():
        collect_statistics(network, batches())


@torch.no_grad()
def collect_statistics(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]
) -> list[str]:
    """Take the statistics of every batch norm anew from batches that count alike.

    Args:
        network: z (N, Z) and, with classes, y (N,) -> images; it ends in eval mode.
        batches: z and y, at least two images each.

    Returns:
        Names of its batch norms.
    """
    norms = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.track_running_stats
    }
    momenta = [norm.momentum for norm in norms.values()]
    network.eval()
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for z, y in batches:
        if y is None:
            network(z)
        else:
            network(z, y)
    network.eval()
    for norm, momentum in zip(norms.values(), momenta, strict=True):
        norm.momentum = momentum
    return list(norms)
