"""Mixtures of classes: weights (N, K) in the place of labels, through the tables of a generator.

N images, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.latents import is_number
from ganinfer.errors import RequestError

if TYPE_CHECKING:
    from ganinfer.drawing.inputs import ClassInput
    from ganinfer.drawing.model import Model

Weights = NDArray[np.float32]
Mixture = Mapping[int | str, float]

_TOLERANCE = 1e-6


def is_mixed(labels: object) -> bool:
    """Is it a mixture, or a list with one in it?"""
    many = isinstance(labels, Sequence) and not isinstance(labels, str)
    return any(isinstance(label, Mapping) for label in (labels if many else [labels]))  # type: ignore[attr-defined]


def mix(model: "Model", labels: Any, n: int, number: Callable[[Any], int]) -> Weights:
    """Mixtures as the caller gives them -> float32 (N, K).

    Args:
        model: what the bundle says of it.
        labels: one mixture for all images, or a mixture or a class for each.
        n: images.
        number: of a class, from its number or name; raises RequestError for others.

    Raises:
        RequestError: the graph takes no mixtures, there are not n, or the weights of one are
            negative or do not sum to 1.
    """
    check_mixable(model)
    if isinstance(labels, Mapping):
        return np.broadcast_to(_row(model, labels, number), (n, len(model.classes)))
    if len(labels) != n:
        raise RequestError(f"labels: found {len(labels)} for {n} images; give one, or one for each")
    rows = [
        _row(model, label if isinstance(label, Mapping) else {label: 1.0}, number)
        for label in labels
    ]
    return np.stack(rows)


def check_mixable(model: "Model") -> None:
    """Raises RequestError if the graph takes one class an image."""
    if model.class_input != "weights":
        raise RequestError(
            "labels: a mixture of classes was asked for, and this bundle takes one class an image;"
            " export it again with: gan export RUN --class-weights"
        )


def checked_weights(model: "Model", weights: NDArray[Any]) -> Weights:
    """Weights (N, K) that a caller made, as float32.

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
    return np.ascontiguousarray(weights, np.float32)


def between(
    model: "Model", start: "ClassInput | None", end: "ClassInput | None", steps: int
) -> Weights:
    """The straight way from one mixture (1, K) to another, both included: (steps, K).

    Raises:
        RequestError: the graph takes no mixtures.
    """
    check_mixable(model)
    assert start is not None
    assert end is not None
    share = np.linspace(0.0, 1.0, steps)[:, None]
    return ((1 - share) * start + share * end).astype(np.float32)


def parse_mixture(text: str, classes: Sequence[str]) -> dict[int | str, float]:
    """From "3:0.5+8:0.5": class names, or numbers where no class is called so.

    Raises:
        RequestError: it is written otherwise.
    """
    mixture: dict[int | str, float] = {}
    for part in text.split("+"):
        name, colon, weight = (piece.strip() for piece in part.rpartition(":"))
        label = int(name) if name.isdecimal() and name not in classes else name
        try:
            mixture[label] = mixture.get(label, 0.0) + float(weight if colon else "")
        except ValueError:
            raise RequestError(
                f"--labels {text}: expected classes and their weights, as in 3:0.5+8:0.5"
            ) from None
    return mixture


def _row(model: "Model", mixture: Mapping[Any, Any], number: Callable[[Any], int]) -> Weights:
    weights = np.zeros((1, len(model.classes)))
    for label, weight in mixture.items():
        if not is_number(weight):
            raise RequestError(f"weight {weight!r} of class {label!r}: expected a number")
        weights[0, number(label)] += float(weight)
    row: Weights = checked_weights(model, weights)[0]
    return row
