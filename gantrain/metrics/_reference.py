"""The real images that generated ones are compared with, seen through an extractor."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gantrain.data import Dataset
from gantrain.metrics._features import Extractor
from gantrain.metrics._statistics import FeatureStatistics
from gantrain.models._base import DiscriminatorModule

_BATCH = 500


@dataclass
class Reference:
    """A dataset and the extractor; statistics are computed once, when first needed.

    discriminator: of the run that is measured, where there is one.
    trained_on: what the generator was trained on, where that is known and another dataset.
    progress: called with (images done, images in all) while they are.
    """

    dataset: Dataset
    extractor: Extractor
    progress: Callable[[int, int], None] | None = None
    discriminator: DiscriminatorModule | None = None
    trained_on: Dataset | None = None

    @cached_property
    def statistics(self) -> FeatureStatistics:
        """Of the features of all real images."""
        statistics = FeatureStatistics(self.extractor.num_features)
        for start in range(0, len(self.dataset), _BATCH):
            images = np.asarray(self.dataset.images[start : start + _BATCH])
            statistics.update(self.extractor(images).features)
            if self.progress:
                self.progress(min(start + _BATCH, len(self.dataset)), len(self.dataset))
        return statistics
