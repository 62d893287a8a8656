"""Shards drawn and packed ahead of the writing: the device works while a shard is flushed."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ganinfer.drawing.encoding import encoding_of
from ganinfer.drawing.latents import draw_labels
from ganinfer.formats import Batch
from ganinfer.sampler import Sampler
from ganinfer.shards.records import Request

# Images that are drawn, packed and written together. Fewer leave more to the interpreter, for whose
# lock drawing and packing wait; more hold more memory.
_MOST, _MOST_BYTES = 512, 16 << 20
_AHEAD = 4  # batches under way, beyond one for each thread that packs


@dataclass(frozen=True)
class Planned:
    """A shard to be: the images of the seeds seed to seed + count - 1."""

    number: int
    name: str
    seed: int
    count: int


@dataclass(frozen=True)
class Packed:
    """A batch of a shard, as its format writes it."""

    shard: Planned
    count: int
    part: Any


def packed(
    sampler: Sampler,
    request: Request,
    shards: Iterable[Planned],
    pack: Callable[[Batch], Any],
    threads: int,
) -> Generator[Packed]:
    """Batches of shards in their order, drawn by one thread and packed by others, a few ahead."""
    batch_size = max(1, min(_MOST, _MOST_BYTES // math.prod(sampler.info["shape"])))
    drawing, packing = ThreadPoolExecutor(1), ThreadPoolExecutor(threads)
    pending: deque[tuple[Planned, int, Future[Any]]] = deque()

    def next_packed() -> Packed:
        shard, count, part = pending.popleft()
        return Packed(shard, count, part.result())

    try:
        for shard in shards:
            for start in range(shard.seed, shard.seed + shard.count, batch_size):
                count = min(batch_size, shard.seed + shard.count - start)
                drawn = drawing.submit(_draw, sampler, request, start, count)
                part = packing.submit(lambda batch: pack(batch.result()), drawn)
                pending.append((shard, count, part))
                if len(pending) == threads + _AHEAD:
                    yield next_packed()
        while pending:
            yield next_packed()
    finally:
        drawing.shutdown(cancel_futures=True)
        packing.shutdown(cancel_futures=True)


def _draw(sampler: Sampler, request: Request, start: int, count: int) -> Batch:
    seeds = np.arange(count, dtype=np.uint64) + np.uint64(start)
    labels = None
    if request.labels is not None:
        done = start - request.seed
        turns = [request.labels[i % len(request.labels)] for i in range(done, done + count)]
        labels = np.array(turns, np.int64)
    elif sampler.classes:
        labels = draw_labels(seeds, len(sampler.classes))
    images = sampler.sample(
        seeds=seeds,
        labels=labels,
        truncation=request.truncation,
        truncation_mode=request.truncation_mode,
    )
    return Batch(
        seeds,
        labels,
        images,
        encoding=encoding_of(request.encoding or "png"),
        classes=tuple(sampler.classes),
        truncation=request.truncation,
    )
