"""How many images a batch has, and how long one runs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ganinfer.backends._base import Backend

# Seconds of a run that is not worth another beside it, nor a second thread: what is around it is
# Python, whose threads wait for one lock. The next run takes what waits meanwhile.
_SHORT_S = 1e-3
# Of one that is not worth sharing out among threads, for the same reason, if nothing else runs.
WHOLE_S = 5e-3


class RunTimes:
    """How long runs took, by their sizes: 1, 2 to 3, 4 to 7 and so on are one size."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[Backend, int], float] = {}  # of the last run

    def add(self, backend: "Backend", n: int, seconds: float) -> None:
        """A run of n images took so long."""
        self._seconds[backend, n.bit_length()] = seconds

    def are_short(self, backend: "Backend", n: int, limit_s: float = _SHORT_S) -> bool:
        """Whether a run of n images is known to be over at once; twice as many take twice as long.

        The longest of them may just have waited for another thread, or have been the first.
        """
        size = n.bit_length()
        for known in range(size, 0, -1):
            if self._seconds.get((backend, known), limit_s) * 2 ** (size - known) < limit_s:
                return True
        return False


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
