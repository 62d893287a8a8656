"""Where shards go, on a disk or in a store: every file there is whole, or is not there."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from ganinfer.files import Sink
from ganinfer.shards.local import LocalFolder
from ganinfer.stores import path_of, split_url


class Folder(Protocol):
    """Files by their names; those of records have a folder of their own.

    Any number of processes and threads may read and write here: of two that write one file the last
    counts. str() names the place in messages.
    """

    def read(self, name: str) -> bytes | None:
        """A small file; None if it is not there."""

    def sizes(self, num: int) -> Callable[[str], int | None]:
        """What tells a file's size in bytes, as it is from now on or was now; None: not there.

        Args:
            num: of the files that will be asked for, more or less.
        """

    def sha256(self, name: str) -> str:
        """Of a file that is there, whose bytes are read."""

    def write(self, name: str, data: bytes) -> None:
        """A small file, whole at once."""

    def writing(self, name: str) -> AbstractContextManager[Sink]:
        """A large file, piece by piece; it is there once the block has ended."""

    def sweep(self) -> None:
        """Delete what processes that were killed have left aside; when nothing is to be written."""


def folder_at(where: Path | str | Folder) -> Folder:
    """The folder of a path, or of a URL that fsspec knows; one that is opened, as it is.

    Raises:
        DataError: there is no such kind of place, or it cannot be opened.
        MissingExtra: a package for it is not installed.
    """
    if not isinstance(where, Path | str):
        return where
    scheme, rest = split_url(str(where))
    match scheme:
        case "":
            return LocalFolder(Path(where))
        case "file" | "local":
            return LocalFolder(path_of(rest))
        case _:
            from ganinfer.shards.remote import RemoteFolder

            return RemoteFolder(f"{scheme}://{rest}")


def lasting_name(where: Path | str) -> Path | str:
    """What means the same place in a process with another working directory."""
    return where if split_url(str(where))[0] else Path(where).absolute()
