"""How many images decide? Looks at more and more of them, until the answer is sure.

Who looks often finds something by chance. The error probability is spent over the looks as Lan and
DeMets (Biometrika 70, 1983) do for Pocock's boundaries: alpha ln(1 + (e - 1) t) up to the share t
of all images, and each look has what it adds (the union bound, which errs on the safe side).
"""

import math
from dataclasses import dataclass
from enum import Enum, auto
from statistics import NormalDist

from ganexport.proof.confidence import Share
from ganinfer.bundle.manifest import Interval

ALPHA = 0.05
_ENDS_95 = NormalDist().inv_cdf(0.975)


class Answer(Enum):
    """What a look says of a gate."""

    PASSES = auto()
    FAILS = auto()
    OPEN = auto()


@dataclass(frozen=True)
class Look:
    """One look of several.

    Attributes:
        num_images: seen so far. all_images: after the last look. z: how many standard deviations
            are sure enough.
    """

    num_images: int
    all_images: int
    z: float

    def of_change(self, change: float, interval: Interval | None, limit: float) -> Answer:
        """Of a value whose errors are symmetric, with its 95 % interval."""
        if interval is None:
            return Answer.PASSES if change <= limit else Answer.FAILS
        times = self.z / _ENDS_95
        high = change + (interval[1] - change) * times
        low = change - (change - interval[0]) * times
        return _answer(low, high, limit)

    def of_share(self, share: Share, limit: float) -> Answer:
        """Of a share of the sampling floor; its errors are ratios."""
        if share.interval is None:
            return Answer.PASSES if share.value <= limit else Answer.FAILS
        times = self.z / _ENDS_95
        high = share.value * (share.interval[1] / share.value) ** times
        low = share.value * (share.interval[0] / share.value) ** times
        lasting = min(1.0, share.lasting + self.z * share.spread)
        return _answer(low, high * self._growth(lasting), limit)

    def growth(self, share: Share) -> float:
        """By how much a share is larger after the last look.

        The floor falls as one over the number of images, and a difference that lasts does not.
        """
        return self._growth(share.lasting)

    def _growth(self, lasting: float) -> float:
        return 1 - lasting + lasting * self.all_images / self.num_images

    def remark(self, answer: Answer) -> str:
        """What there is to say if the images did not decide."""
        if answer is not Answer.OPEN:
            return ""
        if self.num_images == self.all_images:
            return f"too close to call after {self.num_images:,} images; --num asks for more"
        return (
            f"too close to call after {self.num_images:,} images, and time is up; --minutes gives"
            " more"
        )


def looks(first: int, last: int) -> list[Look]:
    """Each at twice the images of the one before, the last at all of them."""
    numbers = []
    while first < last:
        numbers.append(first)
        first *= 2
    found, spent = [], 0.0
    for number in [*numbers, last]:
        before, spent = spent, _spent(number / last)
        found.append(Look(number, last, NormalDist().inv_cdf(1 - (spent - before) / 2)))
    return found


def _answer(low: float, high: float, limit: float) -> Answer:
    if high <= limit:
        return Answer.PASSES
    return Answer.FAILS if low > limit else Answer.OPEN


def _spent(share: float) -> float:
    return ALPHA * math.log(1 + (math.e - 1) * share)
