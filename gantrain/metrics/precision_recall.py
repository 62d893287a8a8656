"""Improved precision and recall (Kynkaanniemi et al., 1904.06991).

A set's manifold is the union of balls around its features, each reaching to its 3rd nearest
neighbour. Precision: the share of generated images in the real manifold; recall: the share of real
images in the generated one.
"""

import torch
from torch import Tensor

from gantrain.metrics._measured import Measured
from gantrain.metrics._neighbours import distance_blocks, nearest_within, some_features
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Parts, Score, proportion

NEEDS = ("features",)
BETTER: dict[str, Better] = {"precision": "higher", "recall": "higher"}
NUM_NEIGHBOURS = 3


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"precision", "recall"}: shares in [0, 1], of at most 10,000 images of each side."""
    real, generated = some_features(reference.real), some_features(fake)
    precise, recalled = precision_recall(real, generated)
    return {
        "precision": proportion(int(precise.sum()), len(precise)),
        "recall": proportion(int(recalled.sum()), len(recalled)),
    }


def parts(reference: Reference, fake: Measured) -> Parts:
    """Of precision: does the image lie in the real manifold? Of recall: what it loses without it.

    Without an image its ball is gone, and those of its neighbours reach farther.
    """
    real, generated = some_features(reference.real), some_features(fake)
    radii_real = nearest_within(real, NUM_NEIGHBOURS)[0][:, -1]
    distances, neighbours = nearest_within(generated, NUM_NEIGHBOURS + 1)
    precise = torch.zeros(len(generated), dtype=torch.bool, device=fake.device)
    lost = torch.zeros(len(generated), dtype=torch.float64, device=fake.device)
    for rows, block in distance_blocks(real, generated):
        precise |= (block <= radii_real[rows, None]).any(dim=0)
        inside = (block <= distances[:, -2]).to(torch.int32)
        gained = (block <= distances[:, -1]).to(torch.int32) - inside
        without = inside.sum(dim=1, keepdim=True, dtype=torch.int32) - inside
        for column in neighbours[:, :-1].T:
            without.index_add_(1, column, gained)
        recalled = inside.any(dim=1, keepdim=True)
        lost += (recalled.double() - (without > 0).double()).sum(dim=0)
    jackknife = (len(generated) - 1) / len(real) * lost
    return {"precision": precise.double().cpu().numpy(), "recall": jackknife.cpu().numpy()}


def precision_recall(real: Tensor, fake: Tensor, k: int = NUM_NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """Which of N generated features lie in the real manifold, and which of M real in theirs.

    Args:
        real, fake: float64 (M, F), (N, F).
        k: which neighbour a ball reaches.

    Returns:
        bool (N,), bool (M,).
    """
    radii_real = nearest_within(real, k)[0][:, -1]
    radii_fake = nearest_within(fake, k)[0][:, -1]
    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, block in distance_blocks(real, fake):
        precise |= (block <= radii_real[rows, None]).any(dim=0)
        recalled[rows] = (block <= radii_fake).any(dim=1)
    return precise, recalled
