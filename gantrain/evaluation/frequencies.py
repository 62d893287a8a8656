"""How often a generator is asked for each class: as often as the data has it, or all alike."""

from dataclasses import replace
from typing import Literal

from gantrain.evaluation.targets import Target
from gantrain.metrics._classes import counts_by_name
from gantrain.metrics._generated import Generated
from gantrain.metrics._reference import Reference

Frequencies = Literal["data", "uniform"]


def asked_as(target: Target, reference: Reference, frequencies: Frequencies) -> Target:
    """A target whose generator is asked for classes by these frequencies; others as they are.

    Seed s draws its class as `ganinfer.drawing.latents.draw_labels_by_counts` says, of the number
    of images that each class has in the real images; where these have no classes, in the data
    that the generator was trained on; where these are not there either, from all classes alike.
    """
    source = target.source
    if not isinstance(source, Generated) or not target.classes:
        return target
    training = reference.trained_on
    if frequencies == "uniform":
        counted = None
    elif reference.classes:
        counted, labels, known = "data", reference.real.labels, reference.classes
    elif training is not None:
        counted, labels, known = "training data", training.labels, training.classes
    else:
        counted = None
    if counted is None or labels is None:
        return replace(target, frequencies="uniform")
    counts = counts_by_name(labels, known, target.classes)
    return replace(target, source=source.asked_by(counts), frequencies=counted)
