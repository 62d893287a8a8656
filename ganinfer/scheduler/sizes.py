"""How many images a batch has."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ganinfer.backends._base import Backend


def doubled_up_to(largest: int) -> list[int]:
    """1, 2, 4, ..., and the largest: sizes to warm up, for one that is new costs a GPU time."""
    return [1 << n for n in range((largest - 1).bit_length())] + [largest]


def most(largest: int, backend: "Backend") -> int:
    """How many images a batch can have."""
    return min(largest, max(backend.batch_sizes)) if backend.pads else largest


def next_batch(
    asked: int, largest: int, backend: "Backend", *, running: int, short: bool = False
) -> int:
    """How many images go into the next batch, at most `largest`, of requests for so many.

    Where sizes are padded, a batch is as full as the largest of them can be. Elsewhere the images
    are shared out among the runs that the device has still threads for, unless they are so few that
    one run with all threads is sooner done, or runs are `short` and one takes them all. It counts
    what was asked for, not what is left of it: or the shares of one request would shrink as it is
    served.
    """
    if backend.pads:
        return min(asked, most(largest, backend))
    few = running == 0 and (short or 2 * asked <= backend.parallel_runs)
    free = 1 if few else max(backend.parallel_runs - running, 1)
    share = min(-(-asked // free), largest)
    return max((size for size in backend.batch_sizes if size <= share), default=share)


def padded_size(n: int, largest: int, backend: "Backend") -> int:
    """The size that a batch of n images is run in."""
    if not backend.batch_sizes:
        return n
    return min((size for size in backend.batch_sizes if size >= n), default=max(n, largest))
