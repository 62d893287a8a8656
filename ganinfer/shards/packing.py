"""Shards drawn and packed ahead of the writing: the device works while a shard is flushed."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ganinfer.formats import Batch
from ganinfer.shards.drawing import Drawn, Planned
from ganinfer.shards.duplicates import Hashes, hashed

_AHEAD = 4  # batches under way, beyond one for each thread that packs


@dataclass(frozen=True)
class Packed:
    """A batch of a shard, as its format writes it.

    Attributes:
        num_drawn: images that were drawn to get its `count`.
        hashes: of its images, if they are wanted.
    """

    shard: Planned
    count: int
    num_drawn: int
    part: Any
    hashes: Hashes | None


@dataclass
class Tally:
    """What is told of a shard's batches when they are written."""

    num_drawn: int = 0
    hashes: list[Hashes] = field(default_factory=list)

    def add(self, batch: Packed) -> None:
        """Count a batch in."""
        self.num_drawn += batch.num_drawn
        if batch.hashes is not None:
            self.hashes.append(batch.hashes)


def packed(
    batches: Iterator[Drawn], pack: Callable[[Batch], Any], threads: int, *, with_hashes: bool
) -> Generator[Packed]:
    """Batches in their order, drawn by one thread and packed by others, a few ahead."""
    drawing, packing = ThreadPoolExecutor(1), ThreadPoolExecutor(threads)

    def made(drawn: Future[Drawn | None]) -> Packed | None:
        if (found := drawn.result()) is None:
            return None
        batch = found.batch
        hashes = hashed(batch) if with_hashes else None
        return Packed(found.shard, len(batch.seeds), found.num_drawn, pack(batch), hashes)

    def ask() -> Future[Packed | None]:
        return packing.submit(made, drawing.submit(next, batches, None))

    try:
        pending = deque(ask() for _ in range(threads + _AHEAD))
        while (batch := pending.popleft().result()) is not None:
            pending.append(ask())
            yield batch
    finally:
        drawing.shutdown(cancel_futures=True)
        packing.shutdown(cancel_futures=True)
