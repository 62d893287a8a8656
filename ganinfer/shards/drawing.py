"""Images of shards, drawn in batches: those of all seeds of a shard, or those that a filter keeps.

A shard has a seed for each of its images, or with a filter `tries` seeds; no two shards have the
same. Of these, each with its label, the first of each class are kept, as many as there would be
without the filter: so a shard is a function of its number still, and classes have the shares that
were asked for, though a filter likes some better than others.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.encoding import encoding_of
from ganinfer.drawing.latents import Seeds, draw_labels
from ganinfer.errors import ConfigError, RequestError
from ganinfer.filters import Filter
from ganinfer.formats import Batch
from ganinfer.sampler import Sampler
from ganinfer.shards.records import Request

# Images that are drawn, packed and written together. Fewer leave more to the interpreter, for whose
# lock drawing and packing wait; more hold more memory.
_MOST, _MOST_BYTES = 512, 16 << 20
_FEWEST = 64  # that are drawn together for the last ones that a filter is to keep

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Planned:
    """A shard to be: `count` images, the first of them the `start`-th of all, from 0.

    Attributes:
        seed: the first that it draws; see the module.
    """

    number: int
    name: str
    start: int
    seed: int
    count: int


@dataclass(frozen=True)
class Drawn:
    """A batch of a shard, and how many images were drawn to get it."""

    shard: Planned
    batch: Batch
    num_drawn: int


class Drawer:
    """Draws the images of shards."""

    def __init__(self, sampler: Sampler, request: Request, kept_by: Filter | None) -> None:
        self._sampler, self._request, self._filter = sampler, request, kept_by
        self._batch_size = max(1, min(_MOST, _MOST_BYTES // math.prod(sampler.shape)))
        turns = request.labels
        self._turns = None if turns is None else np.array(turns, np.int64)

    def each(self, shards: Iterable[Planned]) -> Iterator[Drawn]:
        """Batches of shards in their order, all of one size but for each shard's last."""
        if self._filter is None:
            yield from self._all(shards)
        else:
            for shard in shards:
                yield from self._kept(shard, self._filter)

    def _all(self, shards: Iterable[Planned]) -> Iterator[Drawn]:
        """Those of all seeds; the next one is drawn while one is taken."""
        begun: Callable[[], Drawn] | None = None
        for shard in shards:
            for start in range(0, shard.count, self._batch_size):
                places = np.arange(start, min(start + self._batch_size, shard.count))
                current, begun = begun, self._begin(shard, places)
                if current is not None:
                    yield current()
        if begun is not None:
            yield begun()

    def _kept(self, shard: Planned, kept_by: Filter) -> Iterator[Drawn]:
        """Those that a filter keeps; a batch's images are those of ascending seeds."""
        asked = self._classes(shard, np.arange(shard.count))
        left = np.bincount(asked, minlength=max(1, len(self._sampler.classes)))
        held, num_drawn = self._draw(shard, np.arange(0)), 0
        for places in self._candidates(shard, left):
            batch = self._draw(shard, places)
            rows, looked_at = _first(left, self._classes(shard, places), _verdict(kept_by, batch))
            held, num_drawn = _joined(held, _rows(batch, rows)), num_drawn + looked_at
            while len(held.seeds) >= self._batch_size:
                yield Drawn(shard, _rows(held, slice(self._batch_size)), num_drawn)
                held, num_drawn = _rows(held, slice(self._batch_size, None)), 0
        if len(held.seeds):
            yield Drawn(shard, held, num_drawn)

    def _candidates(self, shard: Planned, left: Integers) -> Iterator[Integers]:
        """Places of a shard's seeds to try, of classes of which images are `left` to be kept."""
        start, most = 0, shard.count * (self._request.tries or 1)
        while left.any():
            wanted = min(self._batch_size, max(_FEWEST, 2 * int(left.sum())))
            chosen = np.arange(0)
            while len(chosen) < wanted and start < most:
                places = np.arange(start, min(start + wanted, most))
                open_ones = places[left[self._classes(shard, places)] > 0]
                chosen, start = np.concatenate([chosen, open_ones]), start + len(places)
            if not len(chosen):
                raise self._exhausted(shard, left, most)
            yield chosen

    def _exhausted(self, shard: Planned, left: Integers, most: int) -> RequestError:
        classes, number = self._sampler.classes, int(left.argmax())
        of_class = f", {left[number]:,} of them of class {classes[number]}" if classes else ""
        return RequestError(
            f"{shard.name}: keep {self._request.keep}: after {most:,} seeds {left.sum():,} of"
            f" {shard.count:,} images are missing{of_class}; ask for less, or for more tries than"
            f" {self._request.tries} an image"
        )

    def _classes(self, shard: Planned, places: Integers) -> Integers:
        """int64 (N,); 0 if there are none."""
        if self._turns is not None:
            return self._turns[(shard.start + places) % len(self._turns)]
        return draw_labels(_seeds(shard, places), max(1, len(self._sampler.classes)))

    def _draw(self, shard: Planned, places: Integers) -> Batch:
        return self._begin(shard, places)().batch

    def _begin(self, shard: Planned, places: Integers) -> Callable[[], Drawn]:
        """Have images drawn; what waits for them."""
        request, sampler = self._request, self._sampler
        seeds = _seeds(shard, places)
        labels = self._classes(shard, places) if sampler.classes else None
        images = sampler.submit(
            seeds=seeds,
            labels=labels,
            truncation=request.truncation,
            truncation_mode=request.truncation_mode,
        )

        def drawn() -> Drawn:
            batch = Batch(
                seeds,
                labels,
                images.result(),
                encoding=encoding_of(request.encoding or "png"),
                classes=tuple(sampler.classes),
                truncation=request.truncation,
            )
            return Drawn(shard, batch, len(seeds))

        return drawn


def _seeds(shard: Planned, places: Integers) -> Seeds:
    return places.astype(np.uint64) + np.uint64(shard.seed)


def _verdict(kept_by: Filter, batch: Batch) -> NDArray[np.bool_]:
    found = np.asarray(kept_by.keeps(batch))
    if found.shape != batch.seeds.shape or found.dtype != np.bool_:
        raise ConfigError(
            f"keep: the filter gives {found.dtype} {found.shape}; expected bool"
            f" {batch.seeds.shape}, one for each image"
        )
    return found


def _first(left: Integers, classes: Integers, keeps: NDArray[np.bool_]) -> tuple[list[int], int]:
    """Rows that are kept, taken off `left`; and how many were looked at to find them.

    What comes after the last of its class is not counted, so that the count is that of drawing
    one by one, whatever the size of a batch.
    """
    rows, looked_at = [], 0
    for row, (number, kept) in enumerate(zip(classes.tolist(), keeps.tolist(), strict=True)):
        if left[number]:
            looked_at += 1
            if kept:
                left[number] -= 1
                rows.append(row)
    return rows, looked_at


def _rows(batch: Batch, rows: list[int] | slice) -> Batch:
    labels = None if batch.labels is None else batch.labels[rows]
    return batch._replace(seeds=batch.seeds[rows], labels=labels, images=batch.images[rows])


def _joined(one: Batch, other: Batch) -> Batch:
    labels = None
    if one.labels is not None and other.labels is not None:
        labels = np.concatenate([one.labels, other.labels])
    return one._replace(
        seeds=np.concatenate([one.seeds, other.seeds]),
        labels=labels,
        images=np.concatenate([one.images, other.images]),
    )
