"""Where the time of a batch goes, layer by layer, and how far each layer is from its roof.

A layer's roof is the least time that its arithmetic takes at the machine's rate in the precision
that was asked for, or its memory traffic at the rate of a big copy, whichever is more.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from numpy.typing import NDArray

from ganinfer.backends._profile import Kernel, Profile, Profiled, repeat
from ganinfer.bench.layers import Layer, Layers
from ganinfer.bench.measure import Asked, answer
from ganinfer.bench.rates import Rates, best, rates_of
from ganinfer.errors import BackendUnavailable

if TYPE_CHECKING:
    import numpy as np

_COSTLIEST, _LEAST_SHARE = 3, 0.01
_FEW_CHANNELS = 16  # fill one vector of float32 at most
_LITTLE_S = 20e-6  # a kernel of less spends much of it on being started


@dataclass(frozen=True)
class LayerTime:
    """A layer in a run of one batch.

    Attributes:
        name: the generator's own. kernels: what really ran, costliest first, with their types.
        type: of the costliest kernel that computes; "" if none does.
        fused_into: the layer whose kernel does this one's work, if it has no kernel of its own.
        seconds: of its kernels. moving_seconds: of those that only copy.
        macs: multiply-accumulates. num_bytes: what its kernels read and write.
        roof_seconds: what they would take at the machine's rates, if these are known. A copy that
            computes nothing would take none.
        why: what keeps it from its roof, of the layers that lose the most time to that.
    """

    name: str
    kernels: list[str]
    type: str
    fused_into: str | None
    seconds: float
    moving_seconds: float
    macs: int
    num_bytes: int
    roof_seconds: float | None
    why: str = ""

    @property
    def gmacs_per_s(self) -> float | None:
        """None of a layer that multiplies no matrices, or has no time of its own."""
        return self.macs / self.seconds / 1e9 if self.macs and self.seconds else None

    @property
    def share_of_roof(self) -> float | None:
        """More than 1 where caches spare it the memory."""
        if self.roof_seconds is None or not self.seconds:
            return None
        return self.roof_seconds / self.seconds

    @property
    def lost_seconds(self) -> float:
        """What it takes beyond its roof."""
        return self.seconds - (self.roof_seconds or 0.0)


@dataclass(frozen=True)
class Anatomy:
    """The layers of a backend in a precision.

    Attributes:
        layers: in the graph's order.
        run_seconds: of a run as it is. profiled_seconds: with the profiler on.
        machine: what this backend reaches in products of matrices in this precision, and a big
            copy; None on a GPU.
    """

    backend: str
    precision: str
    device: str
    batch_size: int
    layers: list[LayerTime]
    run_seconds: float
    profiled_seconds: float
    machine: Rates | None

    @property
    def name(self) -> str:
        """As in "openvino fp32"."""
        return f"{self.backend} {self.precision}"

    @property
    def layer_seconds(self) -> float:
        """The sum over the layers."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def share_of_machine(self) -> float | None:
        """Of the rate of products of matrices, by the whole run; None on a GPU."""
        if self.machine is None:
            return None
        macs = sum(layer.macs for layer in self.layers)
        return macs / self.run_seconds / 1e9 / self.machine.gmacs_per_s

    @property
    def costliest(self) -> list[LayerTime]:
        """Those that lose the most time to their roof, worst first."""
        found = [layer for layer in self.layers if layer.why]
        return sorted(found, key=lambda layer: -layer.lost_seconds)


def measure_layers(asked: Asked) -> Anatomy:
    """Open a candidate and take the times of its layers.

    Raises:
        GanError: it does not open. BackendUnavailable: it has no profiler.
    """
    from ganinfer.backends._open import open_unproven
    from ganinfer.bundle.archive import Bundle
    from ganinfer.drawing.inputs import draw_inputs, labels_of
    from ganinfer.drawing.latents import seed_array

    with Bundle(Path(asked.path)) as bundle:
        backend = open_unproven(bundle, asked.backend, asked.device, asked.precision)
        model, layers = bundle.manifest.model, Layers(bundle.read_graph("fp32"))
    if not isinstance(backend, Profiled):
        raise BackendUnavailable(
            f"backend {asked.backend} cannot tell its layers: it has no method profile(inputs, *,"
            " seconds)"
        )
    seeds = seed_array(range(asked.batch_size))
    inputs = draw_inputs(model, seeds, labels_of(model, seeds, None))
    # Before and after: what else runs on the machine comes and goes.
    rates = [_rates(asked, backend.device)]
    run_seconds = repeat(lambda: backend.run(inputs), asked.seconds)
    profile = backend.profile(inputs, seconds=asked.seconds)
    backend.close()
    rates.append(_rates(asked, backend.device))
    return anatomy(
        asked,
        backend.device,
        layers,
        profile,
        best(rates),
        run_seconds=_typical(run_seconds),
    )


def _rates(asked: Asked, device: str) -> Rates | None:
    on_cpu = device == "cpu"
    return rates_of(asked.backend, asked.precision, asked.seconds / 2) if on_cpu else None


def main() -> None:
    """What the process of a candidate does; see `ganinfer.bench.measure.answer`."""
    answer(measure_layers)


def anatomy(
    asked: Asked,
    device: str,
    layers: Layers,
    profile: Profile,
    rates: Rates | None,
    *,
    run_seconds: float,
) -> Anatomy:
    """Give every kernel's time to a layer, and every layer its roof."""
    quiet = profile.run_seconds.argsort()[: (len(profile.run_seconds) + 1) // 2]
    seconds = profile.seconds[quiet].mean(axis=0).tolist()
    names = layers.of_kernels(profile.kernels)
    times = []
    for layer in layers.layers:
        own = [
            (kernel, spent)
            for kernel, spent, found in zip(profile.kernels, seconds, names, strict=True)
            if found[0] == layer.name
        ]
        hosts = [found[0] for found in names if layer.name in found[1:]] if not own else []
        times.append(_layer_time(layer, own, asked.batch_size, rates, [*hosts, None][0]))
    return Anatomy(
        backend=asked.backend,
        precision=asked.precision,
        device=device,
        batch_size=asked.batch_size,
        layers=_explained(times, layers, asked.precision, rates),
        run_seconds=run_seconds,
        profiled_seconds=_typical(profile.run_seconds),
        machine=rates,
    )


def _layer_time(
    layer: Layer,
    own: list[tuple[Kernel, float]],
    batch_size: int,
    rates: Rates | None,
    fused_into: str | None,
) -> LayerTime:
    """Of a layer, its kernels, and the seconds of each."""
    costly = [kernel for kernel, spent in sorted(own, key=lambda pair: -pair[1]) if spent]
    computing = [kernel for kernel in costly if not kernel.moves]
    needed = sum(kernel.num_bytes for kernel in computing)
    macs = batch_size * layer.macs
    return LayerTime(
        name=layer.name,
        kernels=list(dict.fromkeys(f"{kernel.kind} {kernel.type}" for kernel in costly)),
        type=computing[0].type if computing else "",
        fused_into=fused_into,
        seconds=sum(spent for _, spent in own),
        moving_seconds=sum(spent for kernel, spent in own if kernel.moves),
        macs=macs,
        num_bytes=sum(kernel.num_bytes for kernel in costly),
        roof_seconds=rates.least_seconds(macs, needed) if rates else None,
    )


def _explained(
    times: list[LayerTime], layers: Layers, precision: str, rates: Rates | None
) -> list[LayerTime]:
    """The same, with words on those that lose the most time, and more than next to nothing."""
    least = _LEAST_SHARE * sum(time.seconds for time in times)
    losing = [time for time in times if time.lost_seconds > least]
    worst = sorted(losing, key=lambda time: -time.lost_seconds)[:_COSTLIEST]
    channels = {layer.name: layer.channels for layer in layers.layers}
    return [
        replace(time, why=_why(time, channels[time.name], precision, rates))
        if time in worst
        else time
        for time in times
    ]


def _why(time: LayerTime, channels: int | None, precision: str, rates: Rates | None) -> str:
    """What is known to keep a layer from its roof."""
    found = []
    if time.macs and time.type == "fp32" and precision != "fp32":
        found.append(f"ran in fp32 though {precision} was asked for")
    if (moving := time.moving_seconds / time.seconds) > 0.25:
        found.append(f"copies and changes of layout or type take {moving:.0%} of it")
    if channels is not None and channels < _FEW_CHANNELS:
        found.append(f"output channels ({channels}) do not fill a vector")
    if time.seconds < _LITTLE_S * len(time.kernels):
        found.append("little work a kernel; a larger batch has more")
    if found or time.share_of_roof is None:
        return "; ".join(found)
    by_memory = rates is not None and time.roof_seconds != rates.least_seconds(time.macs, 0)
    if by_memory and time.share_of_roof > 0.5:
        return f"bound by memory: {time.num_bytes / 1e6:,.0f} MB"
    return f"{time.kernels[0]} reaches {time.share_of_roof:.0%} of its roof"


def _typical(seconds: "NDArray[np.float64]") -> float:
    """The mean of the faster half: others use this machine, too."""
    return float(seconds[seconds.argsort()[: (len(seconds) + 1) // 2]].mean())
