"""Memorisation-informed FID (Bai et al., 2106.03062): FID / distance to the training images.

The distance is the mean over generated images of the least 1 - |cos| to a training image's
features. Below a threshold images count as memorised; at it or above MiFID is FID. The paper's
threshold, 0.1, is for Inception features; where real images lie nearer to each other, half their
own distance takes its place.
"""

import torch

from gantrain.metrics._measured import Measured
from gantrain.metrics._moments import frechet_distance
from gantrain.metrics._neighbours import some_features
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("features",)
BETTER: dict[str, Better] = {"mifid": "lower", "memorisation_distance": "higher"}
THRESHOLD = 0.1
_BLOCK = 500
_FEW = 1000  # real images whose distance to the others stands for all


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"mifid", "memorisation_distance"}: FID, larger if images are copies; mean distance."""
    training = torch.from_numpy(reference.training.features).to(fake.device)
    known = torch.nn.functional.normalize(training)
    generated = torch.nn.functional.normalize(some_features(fake).float())
    nearest = torch.cat([(part @ known.T).abs().amax(1) for part in torch.split(generated, _BLOCK)])
    distances = 1 - nearest.double()
    distance = float(distances.mean())
    among_real = (known[:_FEW] @ known.T).abs()
    among_real[:, :_FEW].fill_diagonal_(0)
    threshold = min(THRESHOLD, float(1 - among_real.amax(1).mean()) / 2)
    fid = frechet_distance(reference.moments, fake.moments)
    return {
        "mifid": Score(fid / max(distance, 1e-6) if distance < threshold else fid),
        "memorisation_distance": Score(
            distance, float(distances.std() / len(distances) ** 0.5), len(distances)
        ),
    }
