"""Where does the time of a bundle go on this host? Every backend's layers in every precision."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ganinfer.bench import candidates_of, in_processes
from ganinfer.bench.measure import BULK, Asked, Refused
from ganinfer.bench.roofline import Anatomy
from ganinfer.progress import Progress

if TYPE_CHECKING:
    from ganinfer.host.machine import Host

_PROCESS = "from ganinfer.bench.roofline import main; main()"


@dataclass(frozen=True)
class LayersReport:
    """The layers of a bundle on a host.

    Attributes:
        bundle: its path. sha256: of its manifest.
        measured: the candidates that open here. refused: those that do not, or tell no layers.
    """

    bundle: str
    sha256: str
    host: "Host"
    measured: list[Anatomy]
    refused: list[Refused]

    def to_json(self) -> str:
        """All figures."""
        return json.dumps(asdict(self), indent=1) + "\n"


def bench_layers(
    path: Path,
    *,
    backends: Sequence[str] = (),
    precisions: Sequence[str] = (),
    device: str = "auto",
    batch_size: int = BULK,
    seconds: float = 2.0,
    progress: Progress | None = None,
) -> LayersReport:
    """Measure the layers of a bundle; arguments and errors are those of `ganinfer.bench.bench`.

    Args:
        batch_size: images a run, 1 or more.
        seconds: about how long a candidate runs with the profiler on, and as long without; each
            rate of the machine takes as long again.
    """
    from ganinfer.bundle.archive import Bundle
    from ganinfer.host.machine import this_host

    with Bundle(path) as bundle:
        sha256 = bundle.sha256
        candidates = candidates_of(bundle, backends, precisions)
    asked = [Asked(str(path), *found, device, seconds, batch_size) for found in candidates]
    measured, refused = in_processes(_PROCESS, asked, Anatomy, progress)
    return LayersReport(str(path), sha256, this_host(), measured, refused)
