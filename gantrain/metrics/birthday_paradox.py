"""Birthday-paradox test of the support's size (Arora, Risteski, Zhang, 1706.08224).

If two of s images are near-duplicates with probability 1/2, the support has some s^2 images. The
paper lets a person judge pairs. Here a pair is a near-duplicate if it is nearer than all but 1 in
1,000 real images are to their nearest neighbour, and with C of them among N (N - 1) / 2 pairs the
support is of N (N - 1) / 2 / C images: the number of equally likely images that would give as many.
"""

from torch import Tensor

from gantrain.metrics._measured import Measured
from gantrain.metrics._neighbours import (
    MAX_IMAGES,
    distance_blocks,
    nearest_within,
    some_features,
)
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("features",)
BETTER: dict[str, Better] = {"support_size": "higher", "support_size_real": None}
QUANTILE = 1e-3
FEW = 10


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"support_size", "support_size_real"}: of the generator, and of as many real images."""
    real = reference.real
    count = min(len(real), len(fake), MAX_IMAGES)
    real_features, generated = some_features(real, count), some_features(fake, count)
    near = nearest_within(real_features)[0][:, 0].quantile(QUANTILE)
    return {
        "support_size": support_size(generated, float(near)),
        "support_size_real": support_size(real_features, float(near)),
    }


def support_size(features: Tensor, near: float) -> Score:
    """Size of the support of N features, pairs at squared distances <= near being duplicates."""
    close = sum(int((block <= near).sum()) for _, block in distance_blocks(features, features))
    duplicates = (close - len(features)) // 2  # each pair is met twice, each image meets itself
    pairs = len(features) * (len(features) - 1) / 2
    if duplicates == 0:
        note = (
            f"no near-duplicates among {len(features):,} images: so many do not tell how many more"
        )
        return Score(pairs, None, len(features), note, at_least=True)
    if duplicates < FEW:
        note = f"{duplicates} near-duplicates: too few to say more than the order of magnitude"
        return Score(pairs / (duplicates + 1), None, len(features), note)
    return Score(pairs / duplicates, pairs / duplicates**1.5, len(features))
