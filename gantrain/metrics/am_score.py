"""AM score (Zhou et al., Activation Maximization GAN, 1703.02000).

KL(p(y*) || p(y)) + E_x H(p(y|x)), y* the real images' classes: 0 if every image is of a certain
class and the classes come in the data's shares.
"""

from gantrain.metrics._measured import Measured
from gantrain.metrics._predictions import entropy, kl_divergence, over_splits, probabilities
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Better, Score

NEEDS = ("logits",)
BETTER: dict[str, Better] = {"am_score": "lower"}


def scores(reference: Reference, fake: Measured) -> dict[str, Score]:
    """{"am_score"}: nats, mean over 10 splits, with their standard deviation; lower is better."""
    real = probabilities(reference.real).mean(axis=0)
    value, deviation = over_splits(
        lambda p: float(kl_divergence(real, p.mean(axis=0)) + entropy(p).mean()),
        probabilities(fake),
    )
    return {"am_score": Score(value, deviation)}
