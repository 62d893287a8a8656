"""How a bundle is opened."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict

from ganinfer.bundle.signature import PublicKey
from ganinfer.drawing.arguments import checked_devices, checked_duration, checked_integer
from ganinfer.options import Option


class OpeningOptions(TypedDict, total=False):
    """The keyword arguments of `Sampler`, for those who pass them on."""

    backend: str
    device: str | Sequence[str]
    precision: str
    threads: int | None
    batch_size: int
    max_queue: int
    max_queue_images: int | None
    max_wait_ms: float
    watch: bool
    measure: bool
    allow_unverified: bool
    public_key: PublicKey | None


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The arguments of `Sampler`, which says what they mean; of its commands, too.

    Raises:
        RequestError: one that no sampler can have.
    """

    backend: Annotated[
        str,
        Option(
            help="What runs it: auto, onnxruntime, openvino, tensorrt, ..., or your own"
            " package.module."
        ),
    ] = "auto"
    device: Annotated[
        str | Sequence[str], Option(parse=str, help="Where it runs: auto, cpu, cuda or cuda:N.")
    ] = "auto"
    precision: Annotated[
        str, Option(help="Precision: auto, or one that the bundle holds, fp32, ...")
    ] = "auto"
    threads: Annotated[
        int | None, Option(help="CPU threads, at most; by default all that this process may use.")
    ] = None
    batch_size: int = 64
    max_queue: int = 1024
    max_queue_images: int | None = None
    max_wait_ms: float = 0.0
    watch: bool = False
    measure: bool = True
    allow_unverified: Annotated[
        bool, Option(help="Open a bundle that was exported with --no-verify.")
    ] = False
    public_key: Annotated[
        PublicKey | None,
        Option(
            parse=Path,
            metavar="<path>",
            help="Public key of whoever must have signed the bundle, a PEM file.",
        ),
    ] = None

    def __post_init__(self) -> None:
        checked_devices(self.device)
        if self.threads is not None:
            checked_integer("threads", self.threads, least=1)
        checked_integer("batch_size", self.batch_size, least=1)
        checked_integer("max_queue", self.max_queue, least=1)
        if self.max_queue_images is not None:
            checked_integer("max_queue_images", self.max_queue_images, least=1)
        checked_duration("max_wait_ms", self.max_wait_ms)

    @property
    def devices(self) -> list[str]:
        """One, or several of a pool."""
        return checked_devices(self.device)
