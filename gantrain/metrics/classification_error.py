"""How often a semi-supervised GAN's discriminator mistakes the class of a real image."""

import numpy as np
import torch

from ganinfer.errors import DataError
from gantrain.metrics._features import Features
from gantrain.metrics._reference import Reference
from gantrain.objectives.semi_supervised import classify

_BATCH = 500


class Metric:
    """{"classification_error"}: share in [0, 1] of the dataset's images; give a test set."""

    def __init__(self, reference: Reference) -> None:
        if reference.discriminator is None or reference.dataset.labels is None:
            raise DataError(
                "classification_error: it needs a run, whose discriminator classifies, and a"
                " dataset with labels"
            )
        self._dataset, self._labels = reference.dataset, reference.dataset.labels
        self._discriminator = reference.discriminator

    def update(self, features: Features) -> None:
        """Generated images do not matter here."""

    @torch.no_grad()
    def scores(self) -> dict[str, float]:
        """See the class."""
        wrong = 0
        for start in range(0, len(self._dataset), _BATCH):
            chosen = np.arange(start, min(start + _BATCH, len(self._dataset)))
            features = self._discriminator.features(self._dataset.floats(chosen))
            found = classify(self._discriminator, features).argmax(1).numpy()
            wrong += int((found != self._labels[chosen]).sum())
        return {"classification_error": wrong / len(self._dataset)}
