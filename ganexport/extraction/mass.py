"""The mass that a truncation leaves, P(abs(z) <= t), as nodes of a graph: from a table.

`ganinfer.drawing.normal.exact_mass` rounds from 60 digits, a graph computes in float64. So the mass
is developed about the nearest of 129 centres, with its value and its slope in two parts each. That
gives the nearest float64 for every t = k / 1000, as a test enumerates; of other t about one in ten
thousand differs in the last bit.
"""

import math
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from ganexport.extraction.nodes import Nodes
from ganinfer.drawing.normal import WHOLE, exact_mass

_PER_UNIT = 16  # centres
_ORDER = 10  # of the polynomial about each


def mass(at: Nodes, t: str) -> str:
    """Add the nodes that turn thresholds float64 (N,), in (0, 8], into masses float64 (N,)."""
    nearest = at("Round", at("Mul", t, np.float64(_PER_UNIT)))
    h = at("Sub", t, at("Mul", nearest, np.float64(1 / _PER_UNIT)))
    index = at.cast(nearest, np.int64)
    high, low, short_slope, rest_slope, *others = (at("Gather", c, index) for c in _tables())
    # h and the slope in two parts each, so that the product of the first ones is exact.
    short_h = at.cast(at.cast(h, np.float32), np.float64)
    rest_h = at("Sub", h, short_h)
    product = at("Mul", short_h, short_slope)
    slope = at("Add", short_slope, rest_slope)
    small = at("Add", at("Mul", short_h, rest_slope), at("Mul", rest_h, slope))
    curve = others[-1]
    for coefficient in others[-2::-1]:
        curve = at("Add", at("Mul", curve, h), coefficient)
    small = at("Add", small, at("Mul", at("Mul", h, h), curve))
    small = at("Add", at("Add", small, low), _lost(at, high, product))
    inside = at("Add", at("Add", high, product), small)
    return at("Where", at("Less", t, np.float64(WHOLE)), inside, np.float64(1))


def _lost(at: Nodes, a: str, b: str) -> str:
    """What rounding takes from a + b (Knuth's two-sum)."""
    total = at("Add", a, b)
    of_b = at("Sub", total, a)
    return at("Add", at("Sub", a, at("Sub", total, of_b)), at("Sub", b, of_b))


def _tables() -> list[NDArray[np.float64]]:
    """By centres: the mass and its slope in two parts each, and the further coefficients."""
    rows = [_row(Decimal(n) / _PER_UNIT) for n in range(int(WHOLE) * _PER_UNIT + 1)]
    return [np.array(column) for column in zip(*rows, strict=True)]


def _row(centre: Decimal) -> list[float]:
    """Of m'' = -t m' follows each coefficient from the two before it."""
    with localcontext() as context:
        context.prec = 60
        value = exact_mass(centre)
        # The mass of a narrow strip gives the density in the middle: m(e) = e m'(0) + O(e^3).
        slope = exact_mass(Decimal("1e-25")) * Decimal("1e25") * (-centre * centre / 2).exp()
        terms = [value, slope]
        for n in range(_ORDER - 1):
            last = centre * (n + 1) * terms[n + 1] + (n * terms[n] if n else 0)
            terms.append(-last / ((n + 1) * (n + 2)))
        short = _short(slope)
        return [
            *(float(value), float(value - Decimal(float(value)))),
            *(short, float(slope - Decimal(short))),
            *map(float, terms[2:]),
        ]


def _short(number: Decimal) -> float:
    """Its first 26 bits."""
    fraction, exponent = math.frexp(number)
    return math.ldexp(round(fraction * 2**26), exponent - 26)
