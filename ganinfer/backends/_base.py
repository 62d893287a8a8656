"""What every backend is: the protocol of a loaded generator."""

from collections.abc import Sequence
from typing import Protocol

from ganinfer.bundle.archive import Bundle
from ganinfer.drawing.images import Images
from ganinfer.drawing.inputs import Inputs
from ganinfer.drawing.reading import SupportsDLPack as SupportsDLPack  # what is handed out, too
from ganinfer.errors import BackendUnavailable


class Backend(Protocol):
    """A loaded generator. Calls from several threads are safe.

    Attributes:
        name: of the backend's module. device: "cpu" or "cuda:<n>". precision: "fp32", "fp16", ...
        parallel_runs: how many runs at once the device has threads for.
        batch_sizes: those that it should be given, since a new one costs time; rising. Empty: any.
        pads: whether a batch in between is padded to the next size; else it is cut into several.
        details: what `Sampler.info` adds: versions, threads, engine.
    """

    name: str
    device: str
    precision: str
    parallel_runs: int
    batch_sizes: tuple[int, ...]
    pads: bool
    details: dict[str, str]

    def run(self, inputs: Inputs, *, out: Images | None = None, alone: bool = True) -> Images:
        """Images uint8 (N, H, W, C) of N inputs.

        Args:
            inputs: a batch.
            out: contiguous uint8 (N, H, W, C) to write them into.
            alone: nothing else is to do: all threads may work on it.
        """

    def run_on_device(self, inputs: Inputs) -> SupportsDLPack:
        """Images uint8 (N, H, W, C) of N inputs, in memory of the device; on a CPU as of `run`.

        Raises:
            BackendUnavailable: this one hands out no memory of a GPU.
        """

    def close(self) -> None:
        """Free what the backend holds."""


def device_index(device: str) -> int:
    """The number in "cuda:<n>"; 0 where none is named."""
    return int(device.partition(":")[2] or 0)


def pick_precision(
    bundle: Bundle, available: Sequence[str], wanted: str, preferred: Sequence[str]
) -> str:
    """The precision to open: the one wanted, or the first preferred one that is available.

    Raises:
        BackendUnavailable: it is not there; the message lists what is.
    """
    order = preferred if wanted == "auto" else (wanted,)
    for precision in order:
        if precision in available:
            return precision
    raise BackendUnavailable(
        f"{bundle.path}: no {wanted} variant; it holds {', '.join(available) or 'none'};"
        " export it with --precision"
    )
