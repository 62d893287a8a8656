"""The Inception score without its bias: extrapolated to infinitely many images (1911.07023)."""

from gantrain.metrics._extrapolation import extrapolate
from gantrain.metrics._measured import Measured
from gantrain.metrics._predictions import probabilities
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score
from gantrain.metrics.inception_score import inception_score

NEEDS = ("logits",)
BETTER: dict[str, Better] = {"inception_score_infinity": "higher"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"inception_score_infinity"}: the intercept over 1/N at 15 sizes, with its error."""
    p = probabilities(fake)
    return {
        "inception_score_infinity": extrapolate(lambda rows: inception_score(p[rows]), len(fake))
    }
