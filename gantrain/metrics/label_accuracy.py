"""Does a classifier of the real data see the class that the generator was asked for?"""

import numpy as np

from ganinfer.errors import DataError
from gantrain.metrics._measured import Measured
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Parts, Score, proportion

NEEDS = ("logits", "labels")
BETTER: dict[str, Better] = {"label_accuracy": "higher", "label_accuracy_worst_class": "higher"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"label_accuracy", "label_accuracy_worst_class"}: shares in [0, 1]."""
    if not reference.extractor.sees_classes:
        raise DataError(
            "label_accuracy: the extractor does not see the dataset's classes; choose other metrics"
        )
    if fake.labels is None:
        raise DataError("label_accuracy: the images came without the labels asked for")
    right = fake.logits.argmax(axis=1) == fake.labels
    of_each = {k: right[fake.labels == k] for k in np.unique(fake.labels)}
    worst = min(of_each, key=lambda k: float(of_each[k].mean()))
    share = proportion(int(of_each[worst].sum()), len(of_each[worst]))
    return {
        "label_accuracy": proportion(int(right.sum()), len(right)),
        "label_accuracy_worst_class": share.with_note(f"class {reference.classes[worst]}"),
    }


def parts(reference: Reference, fake: Measured) -> Parts:
    """Is each image of the class that was asked for?"""
    right = fake.logits.argmax(axis=1) == fake.labels
    return {"label_accuracy": right.astype(np.float64)}
