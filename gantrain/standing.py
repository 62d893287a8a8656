"""Standing statistics: Brock, Donahue, Simonyan, 1809.11096, appendix I.

Averaged weights do not fit batch-norm statistics that were collected by other weights, nor do
those of whole latents fit truncated ones. So they are collected anew: in train mode, over batches
of random size and labels, each batch counting alike.
"""

import torch
from torch import nn

from gantrain.distributed import alone
from gantrain.draws import Draws
from gantrain.models._base import GeneratorModule


@torch.no_grad()
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
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    device = next(network.parameters()).device
    draws = Draws(seed, device)
    sizes = torch.randint(
        max(batch_size // 2, 2),
        max(batch_size, 2) + 1,
        (num_batches,),
        generator=torch.Generator().manual_seed(seed),
    )
    network.train()
    with alone():
        for size in sizes.tolist():
            y = draws.integers(network.num_classes, size) if network.num_classes else None
            network(draws.latents(network, size, truncation=truncation), y)
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
