"""The folder that shards go to: every file in it is whole, or is not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ganinfer.files import Sink, leftovers, sha256_file, stream_atomic, write_atomic

RECORDS = "records"


class Folder:
    """Files by their names; those of records have a folder of their own.

    Any number of processes may read and write here. Who writes does so aside, under a name that
    nobody else has, and renames: of two that write one file the last counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes | None:
        """A small file; None if it is not there."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def size(self, name: str) -> int | None:
        """Of a file, in bytes; None if it is not there."""
        try:
            return (self.path / name).stat().st_size
        except FileNotFoundError:
            return None

    def sha256(self, name: str) -> str:
        """Of a file that is there."""
        return sha256_file(self.path / name)

    def write(self, name: str, data: bytes) -> None:
        """A small file, whole at once."""
        self._made(name)
        write_atomic(self.path / name, data)

    @contextmanager
    def writing(self, name: str) -> Iterator[Sink]:
        """A large file, piece by piece; it is there once the block has ended."""
        self._made(name)
        with stream_atomic(self.path / name) as sink:
            yield sink

    def sweep(self) -> None:
        """Delete what processes that were killed have left aside; when nothing is to be written."""
        for folder in (self.path, self.path / RECORDS):
            for left in leftovers(folder):
                left.unlink(missing_ok=True)

    def _made(self, name: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
