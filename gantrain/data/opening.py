"""What a path of data means: a prepared dataset, an embedded one, or shards."""

import logging
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

from ganinfer.files import sha256_bytes
from gantrain.data.dataset import Dataset
from gantrain.data.index import index_shards, is_current
from gantrain.data.prepare import prepare
from gantrain.data.sources.shards import shard_files
from gantrain.distributed import barrier, leads, local_rank

log = logging.getLogger(__name__)


def open_dataset(
    path: Path,
    *,
    source: str | None = None,
    resolution: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The dataset that a path means.

    Args:
        path: what `prepare` wrote; or shards, which are indexed first, in the user's cache folder.
        source: an embedded set, of which a folder that is not there yet is made.
        resolution: of shards and of what the source gives; by default that of their images.
        progress: called with (shards done, shards in all).

    Raises:
        DataError: it is not there and has no source, or it is broken.
    """
    if not (path / "dataset.json").exists() and shard_files(path):
        dataset = Dataset(_indexed(path.resolve(), resolution, progress))
        dataset.path = path  # where it is looked for again, and not in this user's cache
        return dataset
    if source is not None:
        if leads() and not (path / "dataset.json").exists():
            log.info("%s: preparing %s", path, source)
            prepare(source, path, resolution=resolution)
        barrier()
    return Dataset(path)


def _indexed(
    path: Path, resolution: int | None, progress: Callable[[int, int], None] | None
) -> Path:
    """The index of shards; the first process of a machine makes it, or makes it anew."""
    indexes, files = user_cache_path("ganpipe") / "indexes", shard_files(path)
    native, index = (
        indexes / sha256_bytes(f"{path} {asked}".encode()) for asked in (None, resolution)
    )
    if resolution and is_current(native, files) and Dataset(native).resolution == resolution:
        return native
    if local_rank() == 0 and not is_current(index, files):
        log.info("%s: looking at each image of the shards once", path)
        index_shards(path, index, resolution=resolution, progress=progress)
    barrier()
    return index
