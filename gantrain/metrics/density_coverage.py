"""Density and coverage (Naeem et al., 2002.09797).

The real manifold is made of balls, each reaching to the 5th nearest neighbour. Density: how many of
them hold a generated image, on average, over 5: outliers among the real images do not inflate it.
Coverage: the share of balls that hold a generated image.
"""

import torch
from torch import Tensor

from gantrain.metrics._measured import Measured
from gantrain.metrics._neighbours import distance_blocks, nearest_within, some_features
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Parts, Score, proportion

NEEDS = ("features",)
BETTER: dict[str, Better] = {"density": "higher", "coverage": "higher"}
NUM_NEIGHBOURS = 5


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"density", "coverage"}: around 1 at equal distributions; at most 10,000 images of a side."""
    real, generated = some_features(reference.real), some_features(fake)
    balls, covered = density_coverage(real, generated)
    error = float(balls.std() / NUM_NEIGHBOURS / len(balls) ** 0.5)
    return {
        "density": Score(float(balls.mean() / NUM_NEIGHBOURS), error, len(balls)),
        "coverage": proportion(int(covered.sum()), len(covered)),
    }


def parts(reference: Reference, fake: Measured) -> Parts:
    """Of density: in how many balls the image lies. Of coverage: how many hold no other."""
    real, generated = some_features(reference.real), some_features(fake)
    radii = nearest_within(real, NUM_NEIGHBOURS)[0][:, -1]
    balls, alone = torch.zeros(2, len(generated), dtype=torch.float64, device=fake.device)
    for rows, block in distance_blocks(real, generated):
        inside = (block <= radii[rows, None]).double()
        balls += inside.sum(dim=0)
        alone += inside[inside.sum(dim=1) == 1].sum(dim=0)
    jackknife = (len(generated) - 1) / len(real) * alone
    return {"density": (balls / NUM_NEIGHBOURS).cpu().numpy(), "coverage": jackknife.cpu().numpy()}


def density_coverage(real: Tensor, fake: Tensor, k: int = NUM_NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """In how many real balls each of N generated features lies, and which of M balls hold one.

    Args:
        real, fake: float64 (M, F), (N, F).
        k: which neighbour a ball reaches.

    Returns:
        float64 (N,), bool (M,).
    """
    radii = nearest_within(real, k)[0][:, -1]
    balls = torch.zeros(len(fake), dtype=torch.float64, device=fake.device)
    covered = torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for rows, block in distance_blocks(real, fake):
        inside = block < radii[rows, None]
        balls += inside.sum(dim=0)
        covered[rows] = inside.any(dim=1)
    return balls, covered
