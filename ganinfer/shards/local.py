"""A folder of shards on a disk: who writes does so aside, and renames."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ganinfer.files import Sink, leftovers, sha256_file, stream_atomic, write_atomic
from ganinfer.shards.records import RECORDS


class LocalFolder:
    """A `Folder` on this host, or on a disk that hosts share.

    What is being written has a name that nobody else has.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def sizes(self, num: int) -> Callable[[str], int | None]:  # noqa: ARG002
        return self._size

    def sha256(self, name: str) -> str:
        return sha256_file(self.path / name)

    def write(self, name: str, data: bytes) -> None:
        self._made(name)
        write_atomic(self.path / name, data)

    @contextmanager
    def writing(self, name: str) -> Iterator[Sink]:
        self._made(name)
        with stream_atomic(self.path / name) as sink:
            yield sink

    def sweep(self) -> None:
        for folder in (self.path, self.path / RECORDS):
            for left in leftovers(folder):
                left.unlink(missing_ok=True)

    def _size(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_size
        except FileNotFoundError:
            return None

    def _made(self, name: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
