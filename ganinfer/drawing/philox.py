"""Philox4x32-10, the counter-based generator: 32-bit words as a pure function of key and counter.

Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011.
"""

import functools
import sys

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

# What c0 and c2 are multiplied by; what is added to the two words of the key after each round.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

_FACTORS = np.array(MULTIPLIERS, np.uint64)
_STEPS = np.arange(ROUNDS, dtype=np.uint32)[:, None] * np.array(WEYL, np.uint32)
_MASK = 0xFFFFFFFF
_LOW = 0 if sys.byteorder == "little" else 1  # which half of a 64-bit number comes first

# Blocks that long integers compute sooner than arrays.
_MOST_LANES = 100


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
    multipliers, schedule = _FACTORS.reshape(columns), key + _STEPS.reshape(ROUNDS, *columns)
    even, odd = _halves(factors.shape), _halves(factors.shape)  # one is read, one written
    for n in range(ROUNDS):
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


def random_words(keys: NDArray[np.uint64], count: int, stream: int) -> Words:
    """The first words of a stream of each seed.

    Key = seed and counter = (block index, 0, stream, 0): words 4b..4b+3 are block b.

    Args:
        keys: uint64 (N,), the seeds.
        count: how many words.
        stream: which of a seed's streams, each independent of the others.

    Returns:
        uint32 (N, count).
    """
    num_blocks = -(-count // 4)
    if len(keys) * num_blocks <= _MOST_LANES:
        return _words_of_few(keys, num_blocks, stream)[:, :count]
    counter = np.zeros((4, len(keys), num_blocks), np.uint32)
    counter[0] = np.arange(num_blocks, dtype=np.uint32)
    counter[2] = stream
    halves = keys.view(np.uint32).reshape(len(keys), 2)  # of a 64-bit seed
    key = halves.T[:, :, None] if _LOW == 0 else halves.T[::-1, :, None]
    return philox4x32(counter, key).reshape(len(keys), 4 * num_blocks)[:, :count]


def _words_of_few(keys: NDArray[np.uint64], num_blocks: int, stream: int) -> Words:
    """Philox4x32-10 of a few seeds, uint32 (N, 4 num_blocks), in a third of the arrays' time.

    Python's long integers compute all blocks at once: each has a 64-bit lane, in which the product
    of two words has room.
    """
    (m0, m1), (w0, w1), n = MULTIPLIERS, WEYL, len(keys)
    ones, low, blocks = _lanes(n, num_blocks)
    k = int.from_bytes(keys.repeat(num_blocks).astype("<u8", copy=False).tobytes(), "little")
    c0, c1, c2, c3, k0, k1 = blocks, 0, stream * ones, 0, k & low, k >> 32 & low
    for _ in range(ROUNDS):
        p0, p2 = c0 * m0, c2 * m1
        c0, c1 = (p2 >> 32 & low) ^ c1 ^ k0, p2 & low
        c2, c3 = (p0 >> 32 & low) ^ c3 ^ k1, p0 & low
        k0, k1 = k0 + w0 * ones & low, k1 + w1 * ones & low
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
