"""An ONNX file whose weights lie in a file beside it, since protobuf holds 2 GB at most."""

from typing import Self

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
