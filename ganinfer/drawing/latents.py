"""Latents and labels as pure functions of a seed.

Image i depends on its own 64-bit seed alone: not on the batch it is drawn in, the backend, the
operating system or the version. The bits come from the counter-based generator Philox4x32-10, the
seed being its key. A normal draw is the inverse CDF of one uniform, so that a truncated draw is the
*same* uniform through the truncated inverse CDF: no rejection loop, and one seed moves smoothly as
the truncation changes. docs/draw.md says it for other languages.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.normal import Floats, central_mass, normal_quantile
from ganinfer.drawing.philox import random_words
from ganinfer.drawing.reading import AnyArray, described, read, single
from ganinfer.errors import RequestError

Seeds = NDArray[np.uint64]

LATENT_STREAM = 0
LABEL_STREAM = 1
ACCEPTANCE_STREAM = 2

DISTRIBUTIONS = ("normal", "uniform")
TRUNCATION_MODES = ("resample", "scale")
_MOST = 2**48  # seeds at once; more have no addresses
_LARGEST = 1e30  # a truncation; a latent times it is finite in float32

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
        mass = central_mass(float(truncation))
    latents = np.empty((len(keys), z_dim), np.float32)
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        centred = _centred_uniforms(keys[rows], z_dim, LATENT_STREAM)
        if distribution == "uniform":
            latents[rows] = 2.0 * centred
        else:
            latents[rows] = normal_quantile(centred * mass)
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
    words = random_words(seed_array(seeds), 1, LABEL_STREAM)[:, 0]
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


def _centred_uniforms(keys: Seeds, count: int, stream: int) -> Floats:
    """Uniforms minus one half, float64 (N, count): exact multiples of 2**-33, never +-0.5."""
    words = random_words(keys, count, stream)
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
