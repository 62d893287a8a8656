"""Whose class is whose: two lists of classes are matched by their names. K classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.data.names import listed

Numbers = NDArray[np.int64]


def renumbered(labels: Numbers, classes: Sequence[str], known: Sequence[str]) -> Numbers:
    """Labels (N,) of some classes, as numbers of the known classes of the same names.

    Raises:
        DataError: a label is of a class that is not known.
    """
    if list(classes) == list(known):
        return labels
    met = np.unique(labels).tolist()
    number_of = {name: number for number, name in enumerate(known)}
    if strange := [classes[k] for k in met if classes[k] not in number_of]:
        raise DataError(
            f"found images of the classes {listed(strange)}; expected {listed(known)}: classes are"
            " matched by name, so call them alike, or choose metrics that need no classes"
        )
    numbers = np.full(len(classes), -1, np.int64)
    numbers[met] = [number_of[classes[k]] for k in met]
    found: Numbers = numbers[labels]
    return found


def counts_by_name(
    labels: Numbers, known: Sequence[str], classes: Sequence[str]
) -> tuple[int, ...]:
    """How many labels (N,), numbers of the known classes, each of `classes` has, by name."""
    counts = dict(zip(known, np.bincount(labels, minlength=len(known)).tolist(), strict=True))
    return tuple(counts.get(name, 0) for name in classes)
