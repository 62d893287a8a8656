"""Latents and labels as pure functions of a seed.

Image i depends on its own 64-bit seed alone: not on the batch it is drawn in, the backend, the
operating system or the version. The bits come from the counter-based generator Philox4x32-10
(Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011) with
key = seed and counter = (block index, 0, stream, 0). A normal draw is the inverse CDF of one
uniform, so that a truncated draw is the *same* uniform through the truncated inverse CDF: no
rejection loop, and one seed moves smoothly as the truncation changes.

Only +, -, *, / and sqrt touch the numbers: IEEE 754 fixes their results to the last bit.
"""

import functools
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.reading import AnyArray, described, read, single
from ganinfer.errors import RequestError

Floats = NDArray[np.float64]
Seeds = NDArray[np.uint64]
Words = NDArray[np.uint32]
Polynomial = tuple[NDArray[np.float64], ...]

LATENT_STREAM = 0
LABEL_STREAM = 1
ACCEPTANCE_STREAM = 2

DISTRIBUTIONS = ("normal", "uniform")
TRUNCATION_MODES = ("resample", "scale")
_MOST = 2**48  # seeds at once; more have no addresses
_LARGEST = 1e30  # a truncation; a latent times it is finite in float32

# Of Philox4x32: what c0 and c2 are multiplied by; what is added to the key after each round.
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MULTIPLIERS = np.array([_M0, _M1], np.uint64)
_WEYL = np.arange(10, dtype=np.uint32)[:, None] * np.array([_W0, _W1], np.uint32)
_MASK = 0xFFFFFFFF
_LOW = 0 if sys.byteorder == "little" else 1  # which half of a 64-bit number comes first

# Blocks that long integers compute sooner than arrays.
_MOST_LANES = 100

# Rows whose temporaries stay in a core's cache together.
_ROWS_AT_ONCE = 128


def seed_array(seeds: Sequence[int] | AnyArray) -> Seeds:
    """Check seeds and pack them.

    Args:
        seeds: integers in [0, 2**64), one an image; see `ganinfer.drawing.reading.read`.

    Returns:
        uint64 (N,).

    Raises:
        RequestError: something else than such integers.
    """
    if isinstance(seeds, np.ndarray) and seeds.dtype == np.uint64 and seeds.ndim == 1:
        return seeds.view(np.uint64)
    if isinstance(seeds, range) and seeds.step == 1 and 0 <= seeds.start < seeds.stop <= 2**64:
        if seeds.stop - seeds.start > _MOST:
            raise RequestError(f"seeds: found {seeds}; so many do not fit into memory")
        return np.uint64(seeds.start) + np.arange(seeds.stop - seeds.start, dtype=np.uint64)
    array = read("seeds", seeds)
    if array.ndim != 1 or array.dtype.kind not in "iuO":
        raise RequestError(f"seeds: found {described(array)}; expected a list of integers")
    if array.dtype.kind == "O":
        for seed in array:
            is_integer = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
            if not is_integer or not 0 <= seed < 2**64:
                raise _no_seed(single("seeds", seed))
    elif array.size and array.min() < 0:
        raise _no_seed(array.min().item())
    return array.astype(np.uint64)


def _no_seed(found: object) -> RequestError:
    return RequestError(f"seeds: found {found!r}; expected integers from 0 to 2**64 - 1")


def is_number(value: object) -> bool:
    """Python's or NumPy's, and no bool."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def draw_latents(
    seeds: Sequence[int] | AnyArray,
    z_dim: int,
    *,
    distribution: str = "normal",
    truncation: float | None = None,
    truncation_mode: str = "resample",
) -> NDArray[np.float32]:
    """Draw one latent for each seed.

    Args:
        seeds: integers in [0, 2**64), one an image.
        z_dim: length Z of a latent.
        distribution: "normal", N(0, 1), or "uniform", U(-1, 1).
        truncation: None draws untruncated; else see `truncation_mode`.
        truncation_mode: "resample" draws from N(0, 1) given abs(z) <= truncation (BigGAN's
            truncation trick); "scale" multiplies the untruncated draw by it.

    Returns:
        float32 (N, Z); the same bits for a seed whatever the other seeds are.

    Raises:
        RequestError: seeds out of range, an unknown mode, or a truncation that is not positive
            or that the distribution does not have.
    """
    keys = seed_array(seeds)
    if distribution not in DISTRIBUTIONS:
        raise RequestError(f"z distribution {distribution!r}: expected one of {DISTRIBUTIONS}")
    if truncation is not None:
        _check_truncation(distribution, truncation, truncation_mode)
    mass = 1.0  # share of the normal distribution that a draw may come from
    if truncation is not None and truncation_mode == "resample":
        mass = _central_mass(float(truncation))
    latents = np.empty((len(keys), z_dim), np.float32)
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        centred = _centred_uniforms(keys[rows], z_dim, LATENT_STREAM)
        if distribution == "uniform":
            latents[rows] = 2.0 * centred
        else:
            latents[rows] = _normal_quantile(centred * mass)
    if truncation is not None and truncation_mode == "resample":
        # The quantile at the very edge may round to the float32 just outside.
        np.clip(latents, -np.float32(truncation), np.float32(truncation), out=latents)
    elif truncation is not None:
        latents *= np.float32(truncation)
    return latents


def draw_labels(seeds: Sequence[int] | AnyArray, num_classes: int) -> NDArray[np.int64]:
    """Draw one class for each seed, uniformly, from a stream of its own.

    Args:
        seeds: integers in [0, 2**64), one an image.
        num_classes: number of classes K >= 1.

    Returns:
        int64 (N,) in [0, K).
    """
    return _label_words(seeds, num_classes).astype(np.int64)


def draw_labels_by_counts(
    seeds: Sequence[int] | AnyArray, counts: Sequence[int] | AnyArray
) -> NDArray[np.int64]:
    """Draw one class for each seed, as often as it counts, from the stream of `draw_labels`.

    Equal counts give the labels of `draw_labels`.

    Args:
        seeds: integers in [0, 2**64), one an image.
        counts: integers >= 0, one a class, 1 to 2**32 - 1 in all.

    Returns:
        int64 (N,) in [0, K), where a count is not 0.
    """
    ends = np.cumsum(np.asarray(counts, np.uint64))
    places = _label_words(seeds, int(ends[-1]))
    return np.searchsorted(ends, places, side="right").astype(np.int64)


def _label_words(seeds: Sequence[int] | AnyArray, end: int) -> NDArray[np.uint64]:
    """uint64 (N,) in [0, end), end < 2**32."""
    words = _random_words(seed_array(seeds), 1, LABEL_STREAM)[:, 0]
    # Multiply-shift: the top 32 bits of word * end, without the bias or the cost of a modulo. The
    # array is widened, for NumPy 1 keeps its type whatever a number beside it is.
    return (words.astype(np.uint64) * np.uint64(end)) >> np.uint64(32)


def draw_uniforms(seeds: Sequence[int] | AnyArray) -> Floats:
    """Draw one number for each seed, uniformly, from a stream of its own: float64 (N,) in (0, 1).

    It decides whether rejection sampling accepts the seed's image.
    """
    uniforms: Floats = 0.5 + _centred_uniforms(seed_array(seeds), 1, ACCEPTANCE_STREAM)[:, 0]
    return uniforms


def lerp(start: NDArray[np.float32], end: NDArray[np.float32], t: Floats) -> NDArray[np.float32]:
    """The straight way: (1 - t) start + t end.

    Args:
        start, end: float32, of the same shape (...).
        t: float64 (N,) in [0, 1].

    Returns:
        float32 (N, ...).
    """
    share = t.reshape(-1, *[1] * start.ndim)
    path: NDArray[np.float32] = ((1 - share) * start + share * end).astype(np.float32)
    return path


def slerp(start: NDArray[np.float32], end: NDArray[np.float32], t: Floats) -> NDArray[np.float32]:
    """Spherical interpolation, which keeps the norm that normal latents have.

    slerp(a, b; t) = sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, w the angle between a and b.

    Args:
        start, end: float32 (Z,).
        t: float64 (N,) in [0, 1].

    Returns:
        float32 (N, Z).
    """
    a, b = start.astype(np.float64), end.astype(np.float64)
    cosine = np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1.0, 1.0)
    angle = np.arccos(cosine)
    if np.sin(angle) < 1e-6:  # parallel: the arc is the line
        return lerp(start, end, t)
    share = t[:, None]
    path = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    latents: NDArray[np.float32] = path.astype(np.float32)
    return latents


def philox4x32(counter: Words, key: Words) -> Words:
    """Philox4x32-10 on arrays of 32-bit words.

    A round turns (c0, c1, c2, c3) into (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1,
    lo(M0 c0)) and adds the Weyl constants to the key. Its two halves are computed as one array:
    for a few numbers NumPy's time goes by calls.

    Args:
        counter: uint32 (4, ...).
        key: uint32 (2, ...), of as many axes.

    Returns:
        Pseudo-random uint32 (..., 4).
    """
    factors, others = counter[0::2].copy(), counter[1::2]
    columns = (2, *[1] * (counter.ndim - 1))
    multipliers, schedule = _MULTIPLIERS.reshape(columns), key + _WEYL.reshape(10, *columns)
    even, odd = _halves(factors.shape), _halves(factors.shape)  # one is read, one written
    for n in range(10):
        products, high, low = odd if n & 1 else even
        np.multiply(factors, multipliers, out=products, dtype=np.uint64)
        np.bitwise_xor(high, others, out=factors)
        np.bitwise_xor(factors, schedule[n], out=factors)
        others = low
    words = np.empty((*counter.shape[1:], 4), np.uint32)
    words[..., 0], words[..., 2] = factors
    words[..., 1], words[..., 3] = others
    return words


def _halves(shape: tuple[int, ...]) -> tuple[NDArray[np.uint64], Words, Words]:
    """Room for the products of c0 and c2; views of their high and low words, c2's first."""
    products = np.empty(shape, np.uint64)
    words = products.view(np.uint32).reshape(*shape, 2)[::-1]
    return products, words[..., 1 - _LOW], words[..., _LOW]


def _random_words(keys: Seeds, count: int, stream: int) -> Words:
    """uint32 (N, count): words 4b..4b+3 are block b of the seed's stream."""
    num_blocks = -(-count // 4)
    if len(keys) * num_blocks <= _MOST_LANES:
        return _words_of_few(keys, num_blocks, stream)[:, :count]
    counter = np.zeros((4, len(keys), num_blocks), np.uint32)
    counter[0] = np.arange(num_blocks, dtype=np.uint32)
    counter[2] = stream
    halves = keys.view(np.uint32).reshape(len(keys), 2)  # of a 64-bit seed
    key = halves.T[:, :, None] if _LOW == 0 else halves.T[::-1, :, None]
    return philox4x32(counter, key).reshape(len(keys), 4 * num_blocks)[:, :count]


def _words_of_few(keys: Seeds, num_blocks: int, stream: int) -> Words:
    """Philox4x32-10 of a few seeds, uint32 (N, 4 num_blocks), in a third of the arrays' time.

    Python's long integers compute all blocks at once: each has a 64-bit lane, in which the product
    of two words has room.
    """
    n = len(keys)
    ones, low, blocks = _lanes(n, num_blocks)
    k = int.from_bytes(keys.repeat(num_blocks).astype("<u8", copy=False).tobytes(), "little")
    c0, c1, c2, c3, k0, k1 = blocks, 0, stream * ones, 0, k & low, k >> 32 & low
    for _ in range(10):
        p0, p2 = c0 * _M0, c2 * _M1
        c0, c1 = (p2 >> 32 & low) ^ c1 ^ k0, p2 & low
        c2, c3 = (p0 >> 32 & low) ^ c3 ^ k1, p0 & low
        k0, k1 = k0 + _W0 * ones & low, k1 + _W1 * ones & low
    halves = [
        np.frombuffer(lanes.to_bytes(8 * n * num_blocks, "little"), "<u4").reshape(-1, 2)
        for lanes in (c0 | c1 << 32, c2 | c3 << 32)
    ]
    words = np.concatenate(halves, axis=1, dtype=np.uint32)
    return words.reshape(n, 4 * num_blocks)


@functools.lru_cache(maxsize=256)
def _lanes(n: int, num_blocks: int) -> tuple[int, int, int]:
    """Long integers of n * num_blocks 64-bit lanes: of ones, of 32-bit masks, of blocks' numbers.

    Those are 0, 1, 2, ..., once for each of the n seeds.
    """
    count = n * num_blocks
    ones = sum(1 << 64 * lane for lane in range(count))
    return ones, ones * _MASK, sum(lane % num_blocks << 64 * lane for lane in range(count))


def _centred_uniforms(keys: Seeds, count: int, stream: int) -> Floats:
    """Uniforms minus one half, float64 (N, count): exact multiples of 2**-33, never +-0.5."""
    words = _random_words(keys, count, stream)
    return (words.astype(np.float64) - (2.0**31 - 0.5)) * 2.0**-32


def _check_truncation(distribution: str, truncation: float, mode: str) -> None:
    if mode not in TRUNCATION_MODES:
        raise RequestError(f"truncation mode {mode!r}: expected one of {TRUNCATION_MODES}")
    if distribution != "normal":
        raise RequestError(
            f"truncation {truncation}: this model's latent is {distribution}, and truncation is"
            " defined for a normal one; leave truncation out"
        )
    if not (is_number(truncation) and 0 < truncation <= _LARGEST):
        raise RequestError(f"truncation: found {truncation!r}; expected a positive number or None")


@functools.lru_cache(maxsize=256)
def _central_mass(threshold: float) -> float:
    """P(abs(z) <= threshold) = erf(threshold / sqrt 2), from its Maclaurin series.

    Decimal arithmetic with 60 digits is the same everywhere and outlasts the cancellation.
    """
    if threshold >= 8.0:  # what is left, 1e-15, is below the spacing of the uniforms
        return 1.0
    from decimal import Decimal, localcontext

    with localcontext() as context:
        context.prec = 60
        x = Decimal(threshold) / Decimal(2).sqrt()
        pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
        term, total, n = x, Decimal(0), 0
        while abs(term) > Decimal("1e-30"):
            total += term / (2 * n + 1)
            n += 1
            term *= -x * x / n
        return float(2 * total / pi.sqrt())


def _coefficients(*values: float) -> Polynomial:
    """Highest power first; NumPy multiplies by an array of no axes sooner than by a float."""
    return tuple(np.array(value) for value in values)


# Numerators and denominators of algorithm AS 241, PPND16.
_CENTRAL = (
    _coefficients(
        2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
        13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608,
    ),
    _coefficients(
        5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
        5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0,
    ),
)  # fmt: skip
_TAIL = (
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
# artanh(s) / s = 1 + s^2 / 3 + s^4 / 5 + ... + s^20 / 21
_ARTANH = _coefficients(*(1.0 / k for k in range(21, 0, -2)))


def _normal_quantile(centred: Floats) -> Floats:
    """Inverse normal CDF at 0.5 + centred (Wichura, Applied Statistics 37, 1988: AS 241).

    Its third branch, for tails below 1.4e-11, is out of reach of 32-bit uniforms.
    """
    square = centred * centred
    np.subtract(0.180625, square, out=square)
    quantile = _ratio(_CENTRAL, square)
    quantile *= centred
    (tail,) = (np.abs(centred) > 0.425).ravel().nonzero()
    if tail.size:
        q = centred.ravel()[tail]
        r = np.sqrt(-_log(0.5 - np.abs(q)))
        r -= 1.6
        quantile.ravel()[tail] = np.copysign(_ratio(_TAIL, r), q)
    return quantile


def _ratio(polynomials: tuple[Polynomial, Polynomial], x: Floats) -> Floats:
    numerator = _horner(polynomials[0], x)
    numerator /= _horner(polynomials[1], x)
    return numerator


def _horner(polynomial: Polynomial, x: Floats) -> Floats:
    """The polynomial at x."""
    first, second, *others = polynomial
    total: Floats = first * x
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
    low = mantissa < 0.7071067811865476
    mantissa *= low + 1.0
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return 2.0 * s * _horner(_ARTANH, s * s) + (exponent - low) * 0.6931471805599453
