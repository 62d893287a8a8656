"""An ONNX file whose weights lie in a file beside it, since protobuf holds 2 GB at most."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from ganinfer.errors import BackendUnavailable

WEIGHTS_SUFFIX = ".weights"


class LargeOnnx(bytes):
    """The bytes of the graph, which names the other file.

    That name is the sha256 of the weights: graphs that are equal have equal weights.

    Attributes:
        weights: the other file's content. location: its name, `<sha256>.weights`.
    """

    weights: bytes
    location: str

    def __new__(cls, graph: bytes, weights: bytes, location: str) -> Self:
        """Put the two together; nothing is copied but the graph."""
        made = super().__new__(cls, graph)
        made.weights, made.location = weights, location
        return made

    @contextlib.contextmanager
    def on_disk(self) -> Iterator[Path]:
        """Both files in a temporary folder, for a runtime that reads weights from there alone.

        They are the bytes that were checked, whatever happens to the bundle meanwhile; and no
        runtime takes a single weight of more than 2 GB from memory.

        Raises:
            BackendUnavailable: there is no room for them.
        """
        # A runtime may map the weights into memory, and Windows then keeps the file.
        with tempfile.TemporaryDirectory(prefix="ganinfer-", ignore_cleanup_errors=True) as name:
            folder = Path(name).resolve()
            file = folder / "graph.onnx"
            try:
                file.write_bytes(self)
                (folder / self.location).write_bytes(self.weights)
            except OSError as error:
                raise BackendUnavailable(
                    f"{folder}: {len(self.weights):,} bytes of weights beside a graph cannot be put"
                    f" there for the runtime ({error}); let TMPDIR name a place with room"
                ) from None
            yield file
