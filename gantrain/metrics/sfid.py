"""Spatial FID (Nash et al., 2103.03841): FID of 7 channels of a map that still has places.

Of Inception it is mixed_6/conv, 7 x 17 x 17 = 2,023 features.
"""

import numpy as np
import torch

from gantrain.metrics._measured import Measured
from gantrain.metrics._moments import Moments
from gantrain.metrics._neighbours import MAX_IMAGES
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score
from gantrain.metrics.fid import distance

NEEDS = ("spatial",)
BETTER: dict[str, Better] = {"sfid": "lower"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"sfid"}: lower is better; it sees where things are, which the pooled features forget."""
    real = Moments.of(reference.real.stream("spatial"), fake.device)
    generated = Moments.of(fake.stream("spatial"), fake.device)
    some = np.concatenate(list(fake.stream("spatial")))[:MAX_IMAGES]
    return {"sfid": distance(real, generated, torch.from_numpy(some).to(fake.device).double())}
