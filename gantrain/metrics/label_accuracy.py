"""Does a classifier of the real data see the class that the generator was asked for?"""

import numpy as np

from ganinfer.errors import DataError
from gantrain.metrics._features import Features
from gantrain.metrics._reference import Reference


class Metric:
    """{"label_accuracy"}: share of images in [0, 1], and the worst class's share."""

    def __init__(self, reference: Reference) -> None:
        if not reference.extractor.sees_classes:
            raise DataError("label_accuracy: the dataset has no classes; choose other metrics")
        self._classes = reference.dataset.classes
        self._right = np.zeros(len(self._classes))
        self._asked = np.zeros(len(self._classes))

    def update(self, features: Features) -> None:
        """Take in one batch."""
        if features.labels is None:
            raise DataError("label_accuracy: the images came without the labels asked for")
        right = features.logits.argmax(axis=1) == features.labels
        self._right += np.bincount(features.labels[right], minlength=len(self._classes))
        self._asked += np.bincount(features.labels, minlength=len(self._classes))

    def scores(self) -> dict[str, float]:
        """{"label_accuracy": of all images, "label_accuracy_worst_class": of the worst class}."""
        asked = self._asked > 0
        per_class = self._right[asked] / self._asked[asked]
        return {
            "label_accuracy": float(self._right.sum() / self._asked.sum()),
            "label_accuracy_worst_class": float(per_class.min()),
        }
