"""Classification accuracy score (Ravuri and Vinyals, 1905.10887; Shmelkov et al., 1807.09499).

A classifier trained on generated images alone is tested on real ones, beside one trained on as many
real images; and the reverse, a classifier of the real images tested on generated ones. The
classifier is the project's small CNN.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.data.dataset import to_floats
from gantrain.data.streamed import StreamedImages
from gantrain.extractors.classifier import Classifier, train_classifier
from gantrain.metrics._classes import renumbered
from gantrain.metrics._measured import Measured
from gantrain.metrics._neighbours import some_rows
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score, proportion

NEEDS = ("images", "labels")
BETTER: dict[str, Better] = {"cas": "higher", "cas_of_real": None, "cas_reverse": "higher"}
_BATCH = 500


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"cas", "cas_of_real", "cas_reverse"}: accuracies; give a test set as the dataset."""
    test, dataset = reference.dataset, reference.trained_on or reference.dataset
    lacking = dataset.labels is None or test.labels is None or dataset.points is not None
    if lacking or fake.labels is None:
        raise DataError(
            "cas: it needs a dataset of images with classes, and images asked for by class"
        )
    assert dataset.labels is not None
    assert test.labels is not None
    rows = some_rows(len(dataset), len(fake))
    real = np.asarray(dataset.images[rows])
    real_labels = renumbered(np.asarray(dataset.labels[rows]), dataset.classes, test.classes)
    of_fake, of_real = (
        train_classifier(images, labels, len(test.classes), device=fake.device)
        for images, labels in ((fake.images, fake.labels), (real, real_labels))
    )
    return {
        "cas": _accuracy(of_fake, test.images, test.labels, fake.device),
        "cas_of_real": _accuracy(of_real, test.images, test.labels, fake.device),
        "cas_reverse": _accuracy(of_real, fake.images, fake.labels, fake.device),
    }


@torch.no_grad()
def _accuracy(
    network: Classifier,
    images: NDArray[np.uint8] | StreamedImages,
    labels: NDArray[np.int64],
    device: torch.device,
) -> Score:
    right = 0
    for start in range(0, len(images), _BATCH):
        batch = to_floats(torch.from_numpy(np.array(images[start : start + _BATCH])).to(device))
        found = network(batch)[1].argmax(1).cpu().numpy()
        right += int((found == labels[start : start + _BATCH]).sum())
    return proportion(right, len(images))
