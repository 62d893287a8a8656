"""A folder of shards in a store, by fsspec: a file is there once its upload has completed."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from ganinfer.errors import DataError
from ganinfer.files import Sink
from ganinfer.shards.records import RECORDS
from ganinfer.stores import in_words, open_store, without_secrets

_PAGE = 1000  # names in an answer of a store that lists what it has
_READ_BYTES = 4 << 20  # that a thread reads at once, to compute a sha256


class RemoteFolder:
    """A `Folder` of objects whose names begin alike.

    A put is the commit: stores show nothing of an upload that was not completed, and there is no
    other name to write to first. Trying again is left to the package that knows the store.
    """

    def __init__(self, url: str) -> None:
        """See `ganinfer.shards.folder.folder_at`."""
        self._name = without_secrets(url).rstrip("/")
        self._files, root = open_store(url, DataError)
        self._root = root.rstrip("/")

    def __str__(self) -> str:
        return self._name

    def read(self, name: str) -> bytes | None:
        with self._telling(name), suppress(FileNotFoundError):
            return bytes(self._files.cat_file(self._at(name)))
        return None

    def sizes(self, num: int) -> Callable[[str], int | None]:
        """Of many files by a listing of all, which takes a request for each thousand."""
        return self._listed().get if num > _PAGE else self._size

    def sha256(self, name: str) -> str:
        """Read and computed here: what stores tell of a file's content is of many kinds."""
        with (
            self._telling(name),
            self._files.open(self._at(name), "rb", block_size=_READ_BYTES) as file,
        ):
            return hashlib.file_digest(file, "sha256").hexdigest()

    def write(self, name: str, data: bytes) -> None:
        with self.writing(name) as sink:
            sink.write(data)

    @contextmanager
    def writing(self, name: str) -> Iterator[Sink]:
        with self._telling(name, writing=True):
            file = self._files.open(self._at(name), "wb")
        try:
            yield _Upload(file, lambda: self._telling(name, writing=True))
            with self._telling(name, writing=True):
                file.close()
        except BaseException:
            _discard(file)
            raise

    def sweep(self) -> None:
        """Nothing: uploads that were begun are the store's, which forgets them after a while."""

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _size(self, name: str) -> int | None:
        with self._telling(name), suppress(FileNotFoundError):
            return int(self._files.info(self._at(name))["size"])
        return None

    def _listed(self) -> dict[str, int]:
        """The sizes of all files."""
        sizes: dict[str, int] = {}
        for folder in ("", f"{RECORDS}/"):
            with self._telling(folder), suppress(FileNotFoundError):
                for entry in self._files.ls(self._at(folder).rstrip("/"), detail=True):
                    sizes[folder + entry["name"].rpartition("/")[2]] = entry["size"]
        self._files.invalidate_cache()  # in which fsspec would look for each file, one by one
        return sizes

    @contextmanager
    def _telling(self, name: str, *, writing: bool = False) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # fsspec's, or of any package that it has for a place
            words = in_words(error, writing=writing)
            raise DataError(f"{self}/{name}: {words}") from None


class _Upload(Sink):
    """A file that goes to a store, block by block; what goes wrong there is told in words."""

    def __init__(self, file: Any, telling: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__(file)
        self._telling = telling

    def write(self, data: bytes | memoryview) -> int:
        with self._telling():
            return super().write(data)


def _discard(file: Any) -> None:
    """Give up an upload, so that it will not complete either when the file is collected."""
    with suppress(Exception):  # what is the matter has been said
        file.discard()
    with suppress(AttributeError):  # of those that have nothing to complete
        file.closed = True
