"""The normal distribution's quantile as nodes of a graph, bit for bit that of ganinfer.drawing.

Between two nodes numbers go through memory, so that no multiplication and addition become one.
"""

import numpy as np

from ganexport.extraction.nodes import Nodes
from ganinfer.drawing.normal import (
    ARTANH,
    CENTRAL,
    LN_2,
    ROOT_HALF,
    SQUARE_AT,
    TAIL,
    TAIL_AT,
    TAIL_FROM,
    Polynomial,
)


def quantile(at: Nodes, centred: str) -> str:
    """Add the inverse normal CDF at 0.5 + centred, float64 of any shape.

    Both branches are computed everywhere, and one is taken.
    """
    size = at("Abs", centred)
    square = at("Sub", np.float64(SQUARE_AT), at("Mul", centred, centred))
    middle = at("Mul", _ratio(at, CENTRAL, square), centred)
    logarithm = _log(at, at("Sub", np.float64(0.5), size))
    r = at("Sub", at("Sqrt", at("Neg", logarithm)), np.float64(TAIL_AT))
    tail = at("Mul", _ratio(at, TAIL, r), at("Sign", centred))
    return at("Where", at("Greater", size, np.float64(TAIL_FROM)), tail, middle)


def _log(at: Nodes, x: str) -> str:
    """The natural logarithm of x in [2**-33, 0.5]: mantissa and exponent by six steps."""
    exponent: str | np.float64 = np.float64(0)
    for step in (32, 16, 8, 4, 2, 1):
        x, exponent = _scaled(at, x, exponent, step, 2.0**-step)
    x, exponent = _scaled(at, x, exponent, 1, ROOT_HALF)
    s = at("Div", at("Sub", x, np.float64(1)), at("Add", x, np.float64(1)))
    series = at("Mul", at("Mul", np.float64(2), s), _horner(at, ARTANH, at("Mul", s, s)))
    return at("Add", series, at("Mul", exponent, np.float64(LN_2)))


def _scaled(
    at: Nodes, x: str, exponent: str | np.float64, step: int, least: float
) -> tuple[str, str]:
    """Where x is below the least: x times 2**step, and its exponent less step."""
    small = at("Less", x, np.float64(least))
    factor = at("Where", small, np.float64(2.0**step), np.float64(1))
    return at("Mul", x, factor), at(
        "Sub", exponent, at("Where", small, np.float64(step), np.float64(0))
    )


def _ratio(at: Nodes, polynomials: tuple[Polynomial, Polynomial], x: str) -> str:
    return at("Div", _horner(at, polynomials[0], x), _horner(at, polynomials[1], x))


def _horner(at: Nodes, polynomial: Polynomial, x: str) -> str:
    total = at("Mul", polynomial[0], x)
    for coefficient in polynomial[1:-1]:
        total = at("Mul", at("Add", total, coefficient), x)
    return at("Add", total, polynomial[-1])
