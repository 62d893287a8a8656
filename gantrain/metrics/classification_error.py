"""How often a semi-supervised GAN's discriminator mistakes the class of a real image."""

import numpy as np
import torch

from ganinfer.errors import DataError
from gantrain.metrics._classes import renumbered
from gantrain.metrics._generated import Generated
from gantrain.metrics._measured import Measured
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score, proportion
from gantrain.objectives.semi_supervised import classify

NEEDS: tuple[str, ...] = ()
BETTER: dict[str, Better] = {"classification_error": "lower"}
_BATCH = 500


@torch.no_grad()
def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"classification_error"}: share in [0, 1] of the dataset's images; give a test set."""
    dataset, source = reference.dataset, fake.source
    opened = source.open_discriminator if isinstance(source, Generated) else None
    if opened is None or dataset.labels is None:
        raise DataError(
            "classification_error: it needs a run, whose discriminator classifies, and a"
            " dataset with labels"
        )
    discriminator, wrong = opened(), 0
    trained_on = reference.trained_on or dataset
    labels = renumbered(np.asarray(dataset.labels), dataset.classes, trained_on.classes)
    for start in range(0, len(dataset), _BATCH):
        chosen = np.arange(start, min(start + _BATCH, len(dataset)))
        features = discriminator.features(dataset.floats(chosen))
        found = classify(discriminator, features).argmax(1).numpy()
        wrong += int((found != labels[chosen]).sum())
    return {"classification_error": proportion(wrong, len(dataset))}
