"""How fast is a bundle on this host? Every backend in every precision, each in a fresh process.

What this module imports at once is light: a candidate's process imports it too, and whatever
opening a bundle loads shall count as opening.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ganinfer.bench.measure import BULK, Asked, Measured, Refused
from ganinfer.errors import BackendUnavailable, ConfigError
from ganinfer.progress import Progress

if TYPE_CHECKING:
    from ganinfer.bundle.archive import Bundle
    from ganinfer.host.machine import Host
    from ganinfer.host.tuned import Choice

_BASELINE = "onnxruntime fp32"  # every bundle has it, and every host
T = TypeVar("T")
_PROCESS = """
import time
began = time.perf_counter()
import ganinfer
import_s = time.perf_counter() - began
from ganinfer.bench.measure import main
main(import_s)
"""


@dataclass(frozen=True)
class Report:
    """What was measured of a bundle on a host.

    Attributes:
        bundle: its path. sha256: of its manifest.
        macs: multiply-accumulates of an image in the fp32 graph, if the bundle says.
        psnr_db: of each precision where the bundle was made, against torch, on [-1, 1] with peak 2.
        seconds: about how long each figure was measured.
        measured: the candidates that open here. refused: those that do not.
    """

    bundle: str
    sha256: str
    macs: int | None
    psnr_db: dict[str, float]
    seconds: float
    host: "Host"
    measured: list[Measured]
    refused: list[Refused]

    @property
    def fastest(self) -> Measured:
        """At 64 images a call."""
        return max(self.measured, key=lambda found: found.images_per_s[BULK])

    def to_json(self) -> str:
        """All figures."""
        return json.dumps(asdict(self), indent=1) + "\n"


def bench(
    path: Path,
    *,
    backends: Sequence[str] = (),
    precisions: Sequence[str] = (),
    device: str = "auto",
    seconds: float = 2.0,
    progress: Progress | None = None,
) -> Report:
    """Measure a bundle.

    Args:
        path: the bundle.
        backends: those to measure; all of ours by default.
        precisions: those to measure; by default all of the bundle.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        seconds: about how long each figure is measured; there are seven or eight a candidate.
        progress: see `in_processes`.

    Raises:
        BundleError: the bundle is missing or damaged.
        ConfigError: there is no backend of that name.
        BackendUnavailable: nothing opens here; every reason is named.
    """
    from ganinfer.bundle.archive import Bundle
    from ganinfer.host.machine import this_host

    with Bundle(path) as bundle:
        manifest, sha256 = bundle.manifest, bundle.sha256
        candidates = candidates_of(bundle, backends, precisions)
    asked = [Asked(str(path), *candidate, device, seconds) for candidate in candidates]
    measured, refused = in_processes(_PROCESS, asked, Measured, progress)
    return Report(
        bundle=str(path),
        sha256=sha256,
        macs=manifest.model.macs,
        psnr_db={
            gate.artifact.removeprefix("onnx ").partition(" ")[0]: gate.value  # "bf16 (emulated)"
            for gate in manifest.parity
            if gate.artifact.startswith("onnx ") and gate.gate == "PSNR, dB"
        },
        seconds=seconds,
        host=this_host(),
        measured=measured,
        refused=refused,
    )


def tune(report: Report) -> "Choice":
    """Remember the fastest candidate: `Sampler` then opens it on this host, unless told otherwise.

    That it was measured means that its golden images are good here. A backend of the user's own is
    not remembered: no Sampler imports what nobody asks it for.

    Raises:
        ConfigError: none of ours was measured.
    """
    from ganinfer.host.tuned import Choice, remember
    from ganinfer.outside import is_own

    ours = [found for found in report.measured if not is_own(found.backend)]
    if not ours:
        raise ConfigError(
            "tune: only backends of your own were measured, and a Sampler opens those only by name;"
            f' pass backend="{report.fastest.backend}", or measure ours as well'
        )
    best = max(ours, key=lambda found: found.images_per_s[BULK])
    rate = best.images_per_s[BULK]
    others = [
        found.images_per_s[BULK] for found in ours if found.name == _BASELINE and found is not best
    ]
    choice = Choice(
        backend=best.backend,
        device=best.device,
        precision=best.precision,
        images_per_s=rate,
        compared=f"{rate / others[0]:.1f}x {_BASELINE}" if others else "",
    )
    remember(report.sha256, report.host, choice)
    return choice


def candidates_of(
    bundle: "Bundle", backends: Sequence[str], precisions: Sequence[str]
) -> list[tuple[str, str]]:
    """Backends and precisions that are asked for and fit each other.

    Raises:
        ConfigError: there is no backend of that name. BackendUnavailable: none fit.
    """
    from ganinfer.backends._open import BACKEND, precisions_of
    from ganinfer.lookup import find_part, module_names

    for name in backends:
        find_part(BACKEND, name, where="backend")
    names = backends or module_names(BACKEND.package)
    taken = {name: precisions_of(bundle, name) for name in names}
    found = [
        (name, precision)
        for name, held in taken.items()
        for precision in held
        if not precisions or precision in precisions
    ]
    if not found:
        offered = "; ".join(f"{name}: {', '.join(held) or 'none'}" for name, held in taken.items())
        raise BackendUnavailable(
            f"{bundle.path}: no {' or '.join(precisions) or 'variant'} to measure; it holds for"
            f" {offered}"
        )
    return found


def in_processes(
    program: str, asked: Sequence[Asked], kind: type[T], progress: Progress | None
) -> tuple[list[T], list[Refused]]:
    """Measure each candidate in a fresh process.

    Args:
        program: Python that ends in `ganinfer.bench.measure.answer`.
        asked: for each candidate.
        kind: what an answer is.
        progress: called with (what is being measured, candidates done, candidates in all).

    Returns:
        What was measured, and what does not open here.

    Raises:
        BackendUnavailable: nothing opens; every reason is named.
    """
    measured: list[T] = []
    refused: list[Refused] = []
    for number, candidate in enumerate(asked):
        if progress:
            progress(f"{candidate.backend} {candidate.precision}", number, len(asked))
        found = _in_a_process(program, candidate, kind)
        if isinstance(found, Refused):
            refused.append(found)
        else:
            measured.append(found)
    if not measured:
        reasons = dict.fromkeys(f"{found.backend}: {found.reason}" for found in refused)
        raise BackendUnavailable(
            f"{asked[0].path}: nothing can be measured here. {' | '.join(reasons)}"
        )
    return measured, refused


def _in_a_process(program: str, asked: Asked, kind: type[T]) -> T | Refused:
    """Measure a candidate in a fresh process; whatever becomes of that, there is an answer."""
    from pydantic import TypeAdapter

    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        # -P: nothing that lies beside the user is imported, but a backend of his own by its name.
        command = [sys.executable, "-P", "-c", program, json.dumps(asdict(asked)), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode == 0:
            kinds: Any = kind | Refused
            adapter: TypeAdapter[Any] = TypeAdapter(kinds)
            found: T | Refused = adapter.validate_json(answer.read_bytes())
            return found
    if done.returncode < 0:
        reason = f"its process was ended: {signal.strsignal(-done.returncode)}"
    else:
        lines = done.stderr.strip().splitlines() or ["without a word"]
        reason = f"its process failed: {lines[-1]}"
    return Refused(asked.backend, asked.precision, reason)
