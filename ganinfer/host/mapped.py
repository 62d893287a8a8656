"""Graphs as a runtime lays them out, in files that it maps: processes share those pages of memory.

mapped/<key>/    a folder in the user's cache for a graph, a runtime and a processor
    sha256       of every file there, in the format of sha256sum
    ...          what the runtime wrote

Whoever changes these files changes images, so they are read from a folder of this user's alone.
"""

import contextlib
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from ganinfer.errors import GanError
from ganinfer.files import sha256_bytes, sha256_file
from ganinfer.host.machine import processor

log = logging.getLogger(__name__)

MAP = "GANINFER_MAP"  # in the environment: 0 for never
LEAST_BYTES = 32 << 20  # of a graph; what a smaller one takes is no burden
MOST_BYTES = 8 << 30  # of all that is kept; what was unused for longest goes
_TIMES_THE_GRAPH = 5  # room that is asked of the disk: half precision is laid out in float32, twice
_SUMS = "sha256"


def mapped(graph: bytes, runtime: str, make: Callable[[Path], None]) -> Path | None:
    """The folder with what a runtime made of a graph; made now, if it is not there.

    Of processes that ask at once one makes it, and the others wait.

    Args:
        graph: an ONNX file.
        runtime: what the files depend on besides the processor: its name, version and settings.
        make: writes them into an empty folder.

    Returns:
        The folder, every byte of which was checked. None for a small graph, elsewhere than on Linux
        and if `GANINFER_MAP` is 0; and where they cannot be made or kept, as the log says.
    """
    if len(graph) < LEAST_BYTES or sys.platform != "linux" or os.environ.get(MAP) == "0":
        return None
    key = sha256_bytes("\n".join([sha256_bytes(graph), runtime, processor()]).encode())
    kept = folder() / key
    try:
        _require_own(kept.parent)
        if not _is_whole(kept):
            with _alone_in(kept.parent):
                if not _is_whole(kept):  # or another process was faster
                    _require_room(kept.parent, _TIMES_THE_GRAPH * len(graph))
                    _make_anew(kept, make)
                    _remove_unused(kept)
        os.utime(kept)
    except (OSError, GanError) as error:
        log.info("%s: weights are not shared with other processes: %s", kept, error)
        return None
    return kept


def folder() -> Path:
    """Where they are kept; it may be emptied at any time."""
    from platformdirs import user_cache_path

    return user_cache_path("ganpipe") / "mapped"


def _require_own(place: Path) -> None:
    """A folder that nobody else writes to; it is made, if it is not there."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = place.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"{place}: others may write there; expected a folder of this user alone (chmod 700)"
        )


def _require_room(place: Path, size: int) -> None:
    free = shutil.disk_usage(place).free
    if free < size:
        raise OSError(f"{free:,} bytes free, and up to {size:,} are needed")


@contextlib.contextmanager
def _alone_in(place: Path) -> Iterator[None]:
    """Wait until no other process makes anything there; killed, it lets go."""
    import fcntl

    with (place / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_whole(kept: Path) -> bool:
    if not kept.exists():
        return False
    try:
        sums = (kept / _SUMS).read_text()
        if sums == _sums_of(kept):
            return True
    except (OSError, UnicodeDecodeError) as error:
        log.info("%s: %s", kept, error)
    log.warning("%s: damaged; made anew", kept)
    return False


def _sums_of(kept: Path) -> str:
    files = sorted(file for file in kept.iterdir() if file.name != _SUMS)
    return "".join(f"{sha256_file(file)}  {file.name}\n" for file in files)


def _make_anew(kept: Path, make: Callable[[Path], None]) -> None:
    """Aside, then renamed: killed at any point, there is no folder of that name or a whole one."""
    for left in kept.parent.glob(".*"):  # by a process that was killed, since this one is alone
        shutil.rmtree(left)
    aside = kept.parent / f".{uuid.uuid4().hex}"
    aside.mkdir()
    try:
        make(aside)
        (aside / _SUMS).write_text(_sums_of(aside))
        if kept.exists():
            shutil.rmtree(kept)
        aside.rename(kept)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _remove_unused(newest: Path) -> None:
    """What was unused for longest, until all fits; who has mapped it keeps it until it ends."""
    left = MOST_BYTES - _size_of(newest)
    others = [place for place in newest.parent.iterdir() if place.is_dir() and place != newest]
    for place in sorted(others, key=lambda place: place.stat().st_mtime, reverse=True):
        left -= _size_of(place)
        if left < 0:
            shutil.rmtree(place)


def _size_of(place: Path) -> int:
    return sum(file.stat().st_size for file in place.iterdir())
