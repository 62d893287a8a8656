"""Mixtures of classes: weights (N, K) in the place of labels, through the tables of a generator.

N images, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.latents import is_number
from ganinfer.drawing.reading import single
from ganinfer.errors import RequestError

if TYPE_CHECKING:
    from ganinfer.drawing.model import Model

Weights = NDArray[np.float32]
Mixture = Mapping[Any, float]  # weights of class numbers or names

_TOLERANCE = 1e-6
_LARGEST = 1e30  # an integer beyond has no float


def is_mixed(labels: Sequence[object]) -> bool:
    """Is one of them a mixture?"""
    return any(isinstance(label, Mapping) for label in labels)


def mix(model: "Model", labels: Sequence[Any], number: Callable[[Any], int]) -> Weights:
    """Mixtures and classes as the caller gives them -> float32 (N, K).

    Args:
        model: what the bundle says of it.
        labels: a mixture or a class for each of N images, N >= 1.
        number: of a class, from its number or name; raises RequestError for others.

    Raises:
        RequestError: the graph takes no mixtures, or the weights of one are negative or do not sum
            to 1.
    """
    check_mixable(model)
    return np.stack([_row(model, label, number) for label in labels])


def check_mixable(model: "Model") -> None:
    """Raises RequestError if the graph takes one class an image."""
    if model.class_input != "weights":
        raise RequestError(
            "labels: a mixture of classes was asked for, and this bundle takes one class an image;"
            " give class numbers, or export it again with: gan export RUN --class-weights"
        )


def checked_weights(model: "Model", weights: NDArray[Any]) -> Weights:
    """Weights (N, K) that a caller made, as float32, a copy.

    Raises:
        RequestError: a row is no mixture, or the graph takes none.
    """
    check_mixable(model)
    sums = weights.sum(axis=1, dtype=np.float64)
    wrong = ~((weights >= 0).all(axis=1) & (abs(sums - 1) <= _TOLERANCE))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise RequestError(
            f"weights of classes, image {row}: they sum to {sums[row]:.6g}, and the least is"
            f" {weights[row].min():.6g}; expected 0 or more, and a sum of 1"
        )
    return np.array(weights, np.float32, order="C")


def parse_mixture(
    text: str, classes: Sequence[str], *, separator: str = "+"
) -> dict[int | str, float]:
    """From "3:0.5+8:0.5": class names, or numbers where no class is called so.

    separator: of classes; a plus is a blank in URLs.

    Raises:
        RequestError: it is written otherwise.
    """
    mixture: dict[int | str, float] = {}
    for part in text.split(separator):
        name, colon, weight = (piece.strip() for piece in part.rpartition(":"))
        label = int(name) if name.isdecimal() and name not in classes else name
        try:
            mixture[label] = mixture.get(label, 0.0) + float(weight if colon else "")
        except ValueError:
            raise RequestError(
                f"labels {text}: expected classes and their weights, as in 3:0.5{separator}8:0.5"
            ) from None
    return mixture


def _row(model: "Model", label: Any, number: Callable[[Any], int]) -> Weights:
    """Weights (K,) of a mixture, or of a class."""
    weights = np.zeros((1, len(model.classes)))
    for part, weight in label.items() if isinstance(label, Mapping) else [(label, 1.0)]:
        share = single(f"weight of class {part!r}", weight)
        if not is_number(share) or share > _LARGEST:
            raise RequestError(f"weight {share!r} of class {part!r}: expected a number")
        weights[0, number(part)] += float(share)
    row: Weights = checked_weights(model, weights)[0]
    return row
