"""Frechet distance between real and generated features (Heusel et al., 1706.08500)."""

from gantrain.metrics._features import Features
from gantrain.metrics._reference import Reference
from gantrain.metrics._statistics import FeatureStatistics, frechet_distance


class Metric:
    """{"fid"}: the distance to the whole dataset; lower is better, 0 at equal moments.

    It falls with the number of images, and is comparable only between equal numbers, extractors
    and datasets.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self.statistics = FeatureStatistics(reference.extractor.num_features)

    def update(self, features: Features) -> None:
        """Take in one batch."""
        self.statistics.update(features.features)

    def scores(self) -> dict[str, float]:
        """{"fid": distance}."""
        return {"fid": frechet_distance(self._reference.statistics, self.statistics)}
