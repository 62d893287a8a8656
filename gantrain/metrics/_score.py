"""A figure, and how far it may be off."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Which values are better, or the one that is best; None of what is only told for comparison.
Better = Literal["lower", "higher"] | float | None

# Of each generated image, float64 (N,): a score is their mean, up to a constant and to first order.
Parts = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Score:
    """One figure of merit.

    Attributes:
        value: the figure.
        standard_error: of the value, from the sampling of the images; None where it is exact or
            not known.
        num_images: how many generated images it was taken from; None: all of them.
        note: what a reader has to know before he believes it.
        at_least: the truth may be anything above the value.
    """

    value: float
    standard_error: float | None = None
    num_images: int | None = None
    note: str | None = None
    at_least: bool = False

    @property
    def prefix(self) -> str:
        """What stands before the value where it is shown."""
        return "more than " if self.at_least else ""

    def with_note(self, note: str) -> "Score":
        """The same with another note."""
        return replace(self, note=note)


def proportion(hits: int | float, total: int) -> Score:
    """A share of images, with its binomial error."""
    share = hits / total
    return Score(float(share), float((share * (1 - share) / total) ** 0.5), total)
