"""The images of indexed shards, as an array that is read and decoded where it is looked at."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError, GanError
from gantrain.data.decoding import reason_of
from gantrain.data.index import Shard, read_shards
from gantrain.data.pictures import Form, Pixels, prepared
from gantrain.data.sources.parts import Stored
from gantrain.data.sources.shards import stored


class StreamedImages:
    """What `Dataset.images` is where images stay in their shards.

    Indexed as an array is, by a number, a slice or numbers (n,), none of them negative.

    Attributes:
        shape: (N, H, W, C). dtype: uint8.
        starts: int64 (B + 1,): block b has the images starts[b] to starts[b + 1] - 1.
        num_bytes: int64 (B,): of the blocks, as they are stored.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, path: Path, folder: Path, shape: tuple[int, int, int, int]) -> None:
        """Open an index.

        Args:
            path: folder of the index. folder: of the shards.
            shape: of all images.

        Raises:
            DataError: the index is damaged, or a shard is not there or has changed.
        """
        self.shape, self._path, self._folder = shape, path, folder
        self._shards: list[Shard] = []  # without their blocks
        owners, sizes, num_bytes = [], [0], []
        try:
            self._places = np.load(path / "places.npy", mmap_mode="r", allow_pickle=False)
            for number, shard in enumerate(read_shards(path)):
                owners += [number] * len(shard.blocks)
                sizes += [block.num_images for block in shard.blocks]
                num_bytes += [block.num_bytes for block in shard.blocks]
                self._shards.append(replace(shard, blocks=[]))
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise DataError(f"{path}: the index is damaged ({error}); prepare it again") from None
        self._owners = np.array(owners, np.int64)
        self.starts, self.num_bytes = np.cumsum(sizes), np.array(num_bytes, np.int64)
        if not self.starts[-1] == len(self._places) == len(self):
            raise DataError(
                f"{path}: {self.starts[-1]} images in shards.jsonl, {len(self._places)} in"
                f" places.npy and {len(self)} in dataset.json; prepare it again"
            )
        for shard in self._shards:
            self._check(shard)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | np.integer | slice | NDArray[np.int64]) -> Pixels:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        if not isinstance(rows, np.ndarray):
            one: Pixels = self[np.array([rows])][0]
            return one
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        blocks = np.searchsorted(self.starts, rows, side="right") - 1
        for block in np.unique(blocks):
            places = np.flatnonzero(blocks == block)
            images = self._stored(int(block), rows[places])
            for place, row, image in zip(places, rows[places], images, strict=True):
                found[place] = self.decode(image, int(row))
        return found

    def block(self, number: int) -> Sequence[Stored]:
        """All images of a block, as they are stored.

        Raises:
            DataError: the shard is not there or has changed.
        """
        return self._stored(number, np.arange(self.starts[number], self.starts[number + 1]))

    def decode(self, image: Stored, row: int) -> Pixels:
        """A stored image -> uint8 (H, W, C); row: its number, for a message."""
        _, height, width, channels = self.shape
        form = Form(height=height, width=width, channels=channels)
        try:
            return prepared(image, form, "").pixels
        except GanError:
            raise
        except Exception as error:  # whatever a broken image leads to
            shard = self._shards[self._owners[np.searchsorted(self.starts, row, side="right") - 1]]
            raise DataError(
                f"{self._folder / shard.name}: image {row} of {self._path} can no longer be read"
                f" ({reason_of(error)}); prepare it again"
            ) from None

    def _stored(self, block: int, rows: NDArray[np.int64]) -> Sequence[Stored]:
        shard = self._shards[self._owners[block]]
        self._check(shard)
        try:
            return stored(self._folder / shard.name, self._places[rows])
        except GanError:
            raise
        except Exception as error:  # whatever a damaged file leads to
            raise DataError(f"{self._folder / shard.name}: cannot be read ({error})") from None

    def _check(self, shard: Shard) -> None:
        if not shard.is_as_it_was(self._folder):
            raise DataError(
                f"{self._folder / shard.name}: not there, or changed since {self._path} was made"
                " of it; put the shard back, or prepare it again"
            )
