"""The order in which training sees shards that do not fit the memory, and batches in that order.

The blocks of all shards, in an order that is new in every epoch, are cut into windows; the images
of a window are shuffled together. So where an image comes depends on the seed and its position
alone, two windows are all that is held, and a run goes on at any image after reading one window.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import record_function

from ganinfer.host.limits import usable_cpus
from gantrain.data.dataset import Dataset, RealBatches, mirrored, to_floats
from gantrain.data.pictures import Pixels
from gantrain.data.sources.parts import Stored
from gantrain.data.streamed import StreamedImages
from gantrain.distributed import my_share, processes_here

WINDOW_MB = 128
_AHEAD = 3  # batches that are decoded before they are asked for
_MOST_THREADS = 16


@dataclass(frozen=True)
class Window:
    """n images that are shuffled together.

    blocks: their numbers, in the order in which they are read. rows: int64 (n,), the images in the
    order in which they are shown. places: int64 (n,), where each stands among those that are read.
    flipped: bool (n,).
    """

    blocks: NDArray[np.int64]
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    flipped: NDArray[np.bool_]


class Windows:
    """Where an endless sequence of images, every epoch once through all, has which."""

    def __init__(self, images: StreamedImages, *, seed: int, window_mb: float = WINDOW_MB) -> None:
        """window_mb: of stored images in a window, about; two blocks at least."""
        self._starts, self._seed = images.starts, seed
        self._sizes = np.diff(images.starts)
        self._width = max(2, round(window_mb * 1e6 / images.num_bytes.mean()))
        self._each = -(-len(self._sizes) // self._width)  # windows of an epoch
        self._epoch = lru_cache(2)(self._order)
        self.window = lru_cache(3)(self._window)

    def find(self, position: int) -> tuple[int, int]:
        """The number of the window that has the image of this position, and its place in it."""
        epoch, place = divmod(position, int(self._starts[-1]))
        _, ends = self._epoch(epoch)
        number = int(np.searchsorted(ends, place, side="right"))
        return epoch * self._each + number, place - int(ends[number - 1] if number else 0)

    def _order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The blocks of an epoch in their order, and how many images its windows end after."""
        order = _generator(self._seed, epoch, 0).permutation(len(self._sizes))
        ends = np.cumsum(self._sizes[order])
        return order, np.append(ends[self._width - 1 : -1 : self._width], ends[-1])

    def _window(self, number: int) -> Window:
        epoch, number = divmod(number, self._each)
        order, _ = self._epoch(epoch)
        blocks = order[number * self._width : (number + 1) * self._width]
        rows = [np.arange(self._starts[block], self._starts[block + 1]) for block in blocks]
        rng = _generator(self._seed, epoch, 1 + number)
        places = rng.permutation(sum(map(len, rows)))
        return Window(blocks, np.concatenate(rows)[places], places, rng.random(len(places)) < 0.5)


def _generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, stream]))


class StreamedBatches:
    """As `RealBatches`, of images that stay in their shards; threads decode what comes next.

    `position` is the whole state here too.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int,
        device: torch.device,
        mirror: bool = False,
        window_mb: float | None = None,
    ) -> None:
        """Start at position 0; arguments as of `RealBatches` and `Windows`."""
        assert isinstance(dataset.images, StreamedImages)
        self.position = 0
        self._images, self._labels = dataset.images, dataset.labels
        self._batch_size, self._device, self._mirror = batch_size, device, mirror
        self._windows = Windows(dataset.images, seed=seed, window_mb=window_mb or WINDOW_MB)
        self._threads = min(_MOST_THREADS, max(1, usable_cpus() // processes_here()))
        self._decoders = ThreadPoolExecutor(self._threads, "decoding")
        self._reader = ThreadPoolExecutor(1, "reading")
        self._read: dict[int, Future[list[Stored]]] = {}
        self._ahead: deque[_Batch] = deque()

    @record_function("data")
    def next(self) -> tuple[Tensor, Tensor | None]:
        """The next batch: images float32 (N, C, H, W) in [-1, 1]; labels int64 (N,) or None.

        Raises:
            DataError: a shard is not there any more, or has changed.
        """
        if self._ahead and self._ahead[0].position != self.position:
            self._ahead.clear()
        while len(self._ahead) < _AHEAD:
            behind = self._ahead[-1].position + self._batch_size if self._ahead else self.position
            self._ahead.append(self._begin(behind))
        batch = self._ahead.popleft()
        self.position += self._batch_size
        pixels = np.concatenate([part.result() for part in batch.parts])
        images = to_floats(torch.from_numpy(pixels).to(self._device, non_blocking=True))
        if self._mirror:
            images = mirrored(images, torch.from_numpy(batch.flipped))
        if self._labels is None:
            return images, None
        return images, torch.from_numpy(self._labels[batch.rows]).to(self._device)

    def _begin(self, position: int) -> "_Batch":
        """Find out what the batch at a position has, and set the threads to work."""
        number, place = self._windows.find(position)
        first, pieces, missing = number, [], self._batch_size
        while missing:
            window = self._windows.window(number)
            shown = slice(place, place + missing)
            columns = (window.rows[shown], window.places[shown], window.flipped[shown])
            pieces.append(np.stack([np.full(len(columns[0]), number), *columns], axis=1))
            missing -= len(columns[0])
            last, number, place = number, number + 1, 0
        kept = self._ahead[0].first if self._ahead else first
        self._read = {  # the window after the last is read while that is shown
            n: self._read.get(n) or self._reader.submit(self._read_window, n)
            for n in range(kept, last + 2)
        }
        mine = my_share(torch.from_numpy(np.concatenate(pieces))).numpy()
        parts = [
            self._decoders.submit(self._decode, part, self._read)
            for part in np.array_split(mine, min(self._threads, len(mine)))
        ]
        return _Batch(position, first, mine[:, 1], mine[:, 3] > 0, parts)

    def _read_window(self, number: int) -> list[Stored]:
        blocks = self._windows.window(number).blocks
        return [image for block in blocks for image in self._images.block(int(block))]

    def _decode(self, part: NDArray[np.int64], read: dict[int, Future[list[Stored]]]) -> Pixels:
        """Images (n, H, W, C); part (n, 4): of each its window, row, place and if it is flipped."""
        return np.stack(
            [
                self._images.decode(read[number].result()[place], row)
                for number, row, place, _ in part.tolist()
            ]
        )


@dataclass(frozen=True)
class _Batch:
    """A process's share of a batch that is on its way.

    position: of the whole batch. first: its first window. rows: int64 (n,). flipped: bool (n,).
    parts: the pixels.
    """

    position: int
    first: int
    rows: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    parts: list[Future[Pixels]]


def real_batches(
    dataset: Dataset,
    batch_size: int,
    *,
    seed: int,
    device: torch.device,
    mirror: bool,
    window_mb: float | None,
) -> RealBatches | StreamedBatches:
    """Batches of a dataset, wherever its images are."""
    if isinstance(dataset.images, StreamedImages):
        return StreamedBatches(
            dataset, batch_size, seed=seed, device=device, mirror=mirror, window_mb=window_mb
        )
    return RealBatches(dataset, batch_size, seed=seed, device=device, mirror=mirror)
