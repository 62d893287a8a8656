"""What the process of one candidate does: opens it, and takes its times."""

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ganinfer.bench.rates import product_gmacs_per_s
from ganinfer.errors import GanError
from ganinfer.sampler import Sampler

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SIZES, LARGE = (1, 8, 64), 256  # images in a call; the last on a GPU alone
BULK = 64  # the size that candidates are compared at
CLIENTS = (1, 8, 32)


@dataclass(frozen=True)
class Asked:
    """What a process shall measure, and for about how long each figure may take.

    Attributes:
        batch_size: images a run of what measures layers.
    """

    path: str
    backend: str
    precision: str
    device: str
    seconds: float
    batch_size: int = BULK


@dataclass(frozen=True)
class Refused:
    """A candidate that did not open, and why."""

    backend: str
    precision: str
    reason: str


@dataclass(frozen=True)
class Served:
    """What clients get who ask for images again and again, all at once."""

    p50_ms: float
    p99_ms: float
    images_per_s: float

    @classmethod
    def of(cls, times: Sequence[float], wall: float, n: int = 1) -> "Served":
        """times: seconds of each request for n images. wall: of all of them."""
        p50, p99 = np.percentile(times, (50, 99)).tolist()
        return cls(1000 * p50, 1000 * p99, n * len(times) / wall)


@dataclass(frozen=True)
class Measured:
    """The figures of a candidate.

    Attributes:
        backend, precision, device: what was opened.
        import_s: of `import ganinfer`.
        open_s: of `Sampler(...)`: the backend's library is loaded, every byte and the golden images
            are checked.
        first_image_ms: of the first call after that.
        open_mib: the most resident memory until it was opened, beyond that before; None where the
            system does not tell. memory_mib: the same, until all was sampled.
        images_per_s: of `sampler.sample(n)`, by n.
        served: single-image requests, by the number of clients.
        time_shares: of the workers' time at n = 64: "latents", "device" and "rest".
        bare_images_per_s: of one call of the backend at n = 64, its inputs ready.
        share_of_bare: what the sampler reaches of that.
        gmacs_per_s: 10^9 multiply-accumulates a second at n = 64; None if the bundle does not say
            how many an image takes.
        machine_gmacs_per_s: what the backend reaches in this precision in products of matrices; see
            `ganinfer.bench.rates`. None on a GPU, and of a backend whose rate is not known.
    """

    backend: str
    precision: str
    device: str
    import_s: float
    open_s: float
    first_image_ms: float
    open_mib: float | None
    memory_mib: float | None
    images_per_s: dict[int, float]
    served: dict[int, Served]
    time_shares: dict[str, float]
    bare_images_per_s: float
    share_of_bare: float
    gmacs_per_s: float | None
    machine_gmacs_per_s: float | None

    @property
    def name(self) -> str:
        """As in "openvino fp32"."""
        return f"{self.backend} {self.precision}"

    @property
    def share_of_machine(self) -> float | None:
        """At n = 64, of what the backend reaches in products of matrices."""
        if self.gmacs_per_s is None or self.machine_gmacs_per_s is None:
            return None
        return self.gmacs_per_s / self.machine_gmacs_per_s


def measure(asked: Asked, import_s: float) -> Measured:
    """Open a candidate and take all its figures.

    Raises:
        GanError: it does not open.
    """
    memory_before = _memory_mib("VmRSS")
    began = time.perf_counter()
    sampler = Sampler(
        asked.path,
        backend=asked.backend,
        device=asked.device,
        precision=asked.precision,
        allow_unverified=True,  # speed is the same
    )
    opened, open_mib = time.perf_counter(), _beyond(memory_before)
    with sampler:
        sampler.sample(1)
        first_image_s = time.perf_counter() - opened
        info = sampler.info
        rates, shares = {}, {}
        for n in SIZES if info["device"] == "cpu" else (*SIZES, LARGE):
            draw = _successive_seeds(sampler, n)
            _warm_up(draw, asked.seconds)
            before, times, after = sampler.stats, _times(draw, asked.seconds), sampler.stats
            rates[n] = n / statistics.median(times)
            if n == BULK:
                shares = _time_shares(before, after, times)
        served = {count: _serve(sampler, count, asked.seconds) for count in CLIENTS}
    memory_mib = _beyond(memory_before)
    bare = _bare_images_per_s(asked)
    macs, on_cpu = info["macs"], info["device"] == "cpu"
    rate = product_gmacs_per_s(asked.backend, asked.precision, asked.seconds) if on_cpu else None
    return Measured(
        backend=info["backend"],
        precision=info["precision"],
        device=info["device"],
        import_s=import_s,
        open_s=opened - began,
        first_image_ms=1000 * first_image_s,
        open_mib=open_mib,
        memory_mib=memory_mib,
        images_per_s=rates,
        served=served,
        time_shares=shares,
        bare_images_per_s=bare,
        share_of_bare=rates[BULK] / bare,
        gmacs_per_s=None if macs is None else macs * rates[BULK] / 1e9,
        machine_gmacs_per_s=rate,
    )


def main(import_s: float) -> None:
    """What the process of a candidate does; see `answer`."""
    answer(lambda asked: measure(asked, import_s))


def answer(measured: "Callable[[Asked], DataclassInstance]") -> None:
    """Measure what the first argument asks for; write the figures to the file of the second."""
    asked = Asked(**json.loads(sys.argv[1]))
    found: DataclassInstance
    try:
        found = measured(asked)
    except GanError as error:
        found = Refused(asked.backend, asked.precision, str(error))
    Path(sys.argv[2]).write_text(json.dumps(asdict(found)))


def _successive_seeds(sampler: Sampler, n: int, seed: int = 0) -> Callable[[], object]:
    """A call that draws n images, of other seeds each time."""
    starts = iter(range(seed, 1 << 63, n))
    return lambda: sampler.sample(n, seed=next(starts))


def _warm_up(call: Callable[[], object], seconds: float) -> None:
    """Three calls, or one that takes long."""
    end = time.perf_counter() + seconds
    for _ in range(3):
        call()
        if time.perf_counter() > end:
            break


def _times(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each of repeated calls, at least three."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times


def _time_shares(
    before: Mapping[str, Any], after: Mapping[str, Any], times: list[float]
) -> dict[str, float]:
    """Where the time of the workers went that a call keeps busy."""
    from ganinfer.host.limits import usable_cpus

    spent = {name: after[f"{name}_s"] - before[f"{name}_s"] for name in ("latents", "device")}
    batches = (after["batches"] - before["batches"]) / len(times)
    workers = min(batches, usable_cpus())
    shares = {name: seconds / (sum(times) * workers) for name, seconds in spent.items()}
    return shares | {"rest": max(0.0, 1 - sum(shares.values()))}


def _serve(sampler: Sampler, num_clients: int, seconds: float) -> Served:
    """Times of single images, each client in a thread, after a quarter as long without any."""
    _ask(sampler, num_clients, seconds / 4)
    began = time.perf_counter()
    times = _ask(sampler, num_clients, seconds)
    return Served.of(times, time.perf_counter() - began)


def _ask(sampler: Sampler, num_clients: int, seconds: float) -> list[float]:
    """Seconds that each request took."""
    end = time.perf_counter() + seconds

    def client(number: int) -> list[float]:
        call = _successive_seeds(sampler, 1, number << 32)
        times: list[float] = []
        while not times or time.perf_counter() < end:
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return times

    with ThreadPoolExecutor(num_clients) as pool:
        return [seconds for times in pool.map(client, range(num_clients)) for seconds in times]


def _bare_images_per_s(asked: Asked) -> float:
    """The backend alone, as one would call it by hand: one batch, all threads."""
    from ganinfer.backends._open import open_unproven
    from ganinfer.bundle.archive import Bundle
    from ganinfer.drawing.inputs import draw_inputs, labels_of
    from ganinfer.drawing.latents import seed_array

    with Bundle(Path(asked.path)) as bundle:
        backend = open_unproven(bundle, asked.backend, asked.device, asked.precision)
        model, seeds = bundle.manifest.model, seed_array(range(BULK))
    inputs = draw_inputs(model, seeds, labels_of(model, seeds, None))
    run = functools.partial(backend.run, inputs)
    _warm_up(run, asked.seconds)
    rate = BULK / statistics.median(_times(run, asked.seconds))
    backend.close()
    return rate


def _beyond(before: float | None) -> float | None:
    """The most resident memory in MiB until now, beyond what there was before."""
    most = _memory_mib("VmHWM")
    return None if most is None or before is None else most - before


def _memory_mib(kind: str) -> float | None:
    """Of this process, where Linux tells it: "VmRSS", resident now, or "VmHWM", at its most.

    (What getrusage tells as the most begins with that of the parent.)
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:"))
