"""What a path of data means: a prepared dataset, an embedded one, shards, or pictures."""

import logging
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

from ganinfer.errors import DataError
from ganinfer.files import only_writer, sha256_bytes
from gantrain.data.dataset import Dataset
from gantrain.data.index import is_current
from gantrain.data.indexing import index_shards
from gantrain.data.names import is_litter
from gantrain.data.prepare import prepare
from gantrain.data.resolution import Resolution
from gantrain.data.sources.shards import shard_files
from gantrain.distributed import barrier, leads, local_rank

log = logging.getLogger(__name__)


def open_dataset(
    path: Path,
    *,
    source: str | None = None,
    resolution: Resolution | None = None,
    labelled: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The dataset that a path means.

    Args:
        path: what `prepare` wrote; or shards, which are indexed first, or pictures as `prepare`
            reads them, which are prepared first, in the user's cache folder.
        source: an embedded set, of which a folder that is not there yet is made.
        resolution: of shards, pictures and what the source gives; by default that of their images.
        labelled: False leaves labels of shards and pictures out.
        progress: called with (shards or images done, in all).

    Raises:
        DataError: it is not there and has no source, or it is broken.
    """
    if not is_whole(path) and shard_files(path):
        dataset = Dataset(_indexed(path.resolve(), resolution, labelled, progress))
        dataset.path = path  # where it is looked for again, and not in this user's cache
        return dataset
    if source is not None and (is_whole(path) or not path.exists()):
        if leads() and not is_whole(path):
            log.info("%s: preparing %s", path, source)
            prepare(source, path, resolution=resolution)
        barrier()
    elif path.exists() and not is_whole(path):
        dataset = Dataset(_prepared(path, resolution, labelled, progress))
        dataset.path = path
        return dataset
    return Dataset(path)


def prepared_copy(path: Path, resolution: Resolution | None, labelled: bool = True) -> Path:
    """Where pictures lie prepared, or will; the place depends on what they are, not where.

    That is told by the names, sizes and dates of the files.
    """
    entries = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = ((f.relative_to(path).as_posix(), f.stat()) for f in entries if f.is_file())
    kept = [(name, status) for name, status in files if name == "." or not is_litter(name)]
    lines = [f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in kept]
    form = str(resolution) if labelled else f"{resolution} without labels"
    name = sha256_bytes("\n".join([form, *lines]).encode(errors="surrogateescape"))
    return user_cache_path("ganpipe") / "prepared" / name[:32]


def _prepared(
    path: Path,
    resolution: Resolution | None,
    labelled: bool,
    progress: Callable[[int, int], None] | None,
) -> Path:
    """A prepared copy of pictures; the first process of a machine makes it."""
    native, made = (prepared_copy(path, asked, labelled) for asked in (None, resolution))
    if resolution and is_whole(native) and Dataset(native).resolution == resolution:
        return native
    if local_rank() == 0 and not is_whole(made):
        log.info("%s: preparing its pictures in %s", path, made)
        made.parent.mkdir(parents=True, exist_ok=True)
        try:
            with only_writer(made.parent):
                prepare(
                    str(path), made, resolution=resolution, labelled=labelled, progress=progress
                )
        except DataError as error:
            raise DataError(
                f"{path}: no prepared dataset, and as pictures it cannot be taken: {error}; for"
                " gan train --resolution N is --set data.resolution=N, --no-labels is --set"
                " data.labels=false, and gan prepare has more options"
            ) from None
    barrier()
    return made


def is_whole(folder: Path) -> bool:
    """Has a dataset been made there?"""
    return (folder / "dataset.json").exists()


def _indexed(
    path: Path,
    resolution: Resolution | None,
    labelled: bool,
    progress: Callable[[int, int], None] | None,
) -> Path:
    """The index of shards; the first process of a machine makes it, or makes it anew."""
    indexes, files = user_cache_path("ganpipe") / "indexes", shard_files(path)
    kind = "" if labelled else " without labels"
    native, index = (
        indexes / sha256_bytes(f"{path} {asked}{kind}".encode()) for asked in (None, resolution)
    )
    if resolution and is_current(native, files) and Dataset(native).resolution == resolution:
        return native
    if local_rank() == 0 and not is_current(index, files):
        log.info("%s: looking at each image of the shards once", path)
        index_shards(path, index, resolution=resolution, labelled=labelled, progress=progress)
    barrier()
    return index
