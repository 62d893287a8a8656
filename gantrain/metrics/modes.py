"""How many of the data's modes a generator covers, as VEEGAN and PacGAN count them.

A mode is a class. Srivastava et al., 1705.07761; Lin et al., 1712.04086.
"""

import numpy as np

from ganinfer.errors import DataError
from gantrain.metrics._features import Features, Points
from gantrain.metrics._reference import Reference


class Metric:
    """{"modes", "num_modes", "modes_kl"}; for points also {"high_quality"}.

    modes: classes in which the classifier sees at least one image (of points: one within 3 sigma
    of the centre). modes_kl: KL divergence, in nats, from the data's histogram of classes to the
    generated one. high_quality: share of points within 3 sigma of a centre.
    """

    def __init__(self, reference: Reference) -> None:
        if not reference.extractor.sees_classes:
            raise DataError("modes: the dataset has no classes; choose other metrics")
        self._reference = reference
        self._seen = np.zeros(reference.dataset.num_classes)
        self._good, self._total = 0, 0

    def update(self, features: Features) -> None:
        """Take in one batch."""
        classes, best = features.logits.argmax(axis=1), features.logits.max(axis=1)
        points = isinstance(self._reference.extractor, Points)
        good = best >= -3 if points else np.ones(len(best), bool)
        self._seen += np.bincount(classes[good], minlength=len(self._seen))
        self._good, self._total = self._good + int(good.sum()), self._total + len(good)

    def scores(self) -> dict[str, float]:
        """See the class."""
        labels = self._reference.dataset.labels
        assert labels is not None
        real = np.bincount(labels, minlength=len(self._seen)) / len(labels)
        fake = self._seen / max(self._seen.sum(), 1)
        there = fake > 0
        scores = {
            "modes": float(there.sum()),
            "num_modes": float((real > 0).sum()),
            "modes_kl": float(
                (fake[there] * np.log(fake[there] / np.maximum(real[there], 1e-12))).sum()
            ),
        }
        if isinstance(self._reference.extractor, Points):
            scores["high_quality"] = self._good / self._total
        return scores
