"""The normal distribution's quantile, and the share of it that a truncation leaves.

Only +, -, *, / and sqrt touch the numbers: IEEE 754 fixes their results to the last bit.
"""

import functools
from decimal import Decimal, localcontext
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Polynomial = tuple[NDArray[np.float64], ...]
Number = TypeVar("Number", np.float64, np.complex128)

WHOLE = 8.0  # what lies beyond, 1e-15 of the mass, is below the spacing of the uniforms


@functools.lru_cache(maxsize=256)
def central_mass(threshold: float) -> float:
    """P(abs(z) <= threshold), of normal z, as the nearest float64; 1 from 8 on."""
    if threshold >= WHOLE:
        return 1.0
    return float(exact_mass(Decimal(threshold)))


def exact_mass(threshold: Decimal) -> Decimal:
    """P(abs(z) <= threshold) = erf(threshold / sqrt 2), from its Maclaurin series.

    Decimal arithmetic with 60 digits is the same everywhere and outlasts the cancellation.
    """
    with localcontext() as context:
        context.prec = 60
        x = threshold / Decimal(2).sqrt()
        pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
        term, total, n = x, Decimal(0), 0
        while abs(term) > Decimal("1e-30"):
            total += term / (2 * n + 1)
            n += 1
            term *= -x * x / n
        return 2 * total / pi.sqrt()


def _coefficients(*values: float) -> Polynomial:
    """Highest power first; NumPy multiplies by an array of no axes sooner than by a float."""
    return tuple(np.array(value) for value in values)


# Numerators and denominators of algorithm AS 241, PPND16, near the middle and in the tails.
CENTRAL = (
    _coefficients(
        2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
        13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608,
    ),
    _coefficients(
        5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
        5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0,
    ),
)  # fmt: skip
TAIL = (
    _coefficients(
        7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177,
        1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055,
        4.6303378461565452959, 1.42343711074968357734,
    ),
    _coefficients(
        1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966,
        0.14810397642748007459, 0.68976733498510000455, 1.6763848301838038494,
        2.05319162663775882187, 1.0,
    ),
)  # fmt: skip
TAIL_FROM = 0.425  # abs(centred) beyond which the second pair is taken
SQUARE_AT, TAIL_AT = 0.180625, 1.6  # what the two pairs are polynomials about
ROOT_HALF, LN_2 = 0.7071067811865476, 0.6931471805599453
# artanh(s) / s = 1 + s^2 / 3 + s^4 / 5 + ... + s^20 / 21
ARTANH = _coefficients(*(1.0 / k for k in range(21, 0, -2)))


def _ratio_of(numerator: Polynomial, denominator: Polynomial) -> tuple[NDArray[np.complex128], ...]:
    """Two polynomials as one, of complex coefficients."""
    return tuple(np.array(complex(a, b)) for a, b in zip(numerator, denominator, strict=True))


_CENTRAL, _TAIL = _ratio_of(*CENTRAL), _ratio_of(*TAIL)


def normal_quantile(centred: Floats) -> Floats:
    """Inverse normal CDF at 0.5 + centred (Wichura, Applied Statistics 37, 1988: AS 241).

    Its third branch, for tails below 1.4e-11, is out of reach of 32-bit uniforms.
    """
    flat = centred.ravel()
    square = flat * flat
    np.subtract(SQUARE_AT, square, out=square)
    quantile = _ratio(_CENTRAL, square)
    quantile *= flat
    distance = np.abs(flat)
    (tail,) = (distance > TAIL_FROM).nonzero()
    if tail.size:
        r = np.sqrt(-_log(0.5 - distance[tail]))
        r -= TAIL_AT
        quantile[tail] = np.copysign(_ratio(_TAIL, r), flat[tail])
    return quantile.reshape(centred.shape)


def _ratio(polynomials: tuple[NDArray[np.complex128], ...], x: Floats) -> Floats:
    """Of two polynomials at x, in half as many calls, which few numbers' time goes by.

    x has no imaginary part: so neither touches the other, and each has the bits that it has alone.
    """
    both = _horner(polynomials, x.astype(np.complex128))
    ratio: Floats = both.real / both.imag
    return ratio


def _horner(polynomial: tuple[NDArray[Number], ...], x: NDArray[Number]) -> NDArray[Number]:
    """The polynomial at x."""
    first, second, *others = polynomial
    total: NDArray[Number] = first * x
    total += second
    for coefficient in others:
        total *= x
        total += coefficient
    return total


def _log(x: Floats) -> Floats:
    """Natural logarithm from basic arithmetic; numpy's differs in the last bit between hosts.

    x = 2**e m with m in [0.7, 1.42), and log m = 2 artanh s, s = (m - 1) / (m + 1).
    """
    mantissa, exponent = np.frexp(x)
    low = mantissa < ROOT_HALF
    mantissa *= low + 1.0
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return 2.0 * s * _horner(ARTANH, s * s) + (exponent - low) * LN_2
