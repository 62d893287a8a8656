"""Where the time of a training step goes, layer by layer.

What is measured is `train` itself, in a folder that is thrown away, by torch's profiler.
"""

import itertools
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import profile

from ganinfer.errors import ConfigError
from gantrain.distributed import several_processes
from gantrain.game.config import Config
from gantrain.training.layer_events import Spent, mark_layers, spent_by
from gantrain.training.summary import Row, summarize
from gantrain.training.train import pick_device, train

_WARM_UP = 3  # steps: memory is taken, kernels are chosen
_MATRIX_SIZE = 2048
_COSTLIEST = 3
_FEW_CHANNELS = 16  # fill one vector of float32 at most


@dataclass(frozen=True)
class LayerCost:
    """A layer in a step: all its forwards and backwards, for both players.

    Attributes:
        name: as in "discriminator.downs.0". What holds other layers has what it does between them.
        forward_ms, backward_ms: of a step. weight_ms: the part of both that goes into making the
            weight, by spectral norm say.
        macs: multiply-accumulates of a step, both ways.
        channels: of its output; None if it multiplies no matrices.
    """

    name: str
    forward_ms: float
    backward_ms: float
    weight_ms: float
    macs: int
    channels: int | None

    @property
    def ms(self) -> float:
        """Both ways."""
        return self.forward_ms + self.backward_ms

    @property
    def gmacs_per_s(self) -> float | None:
        """None of a layer that multiplies no matrices."""
        return self.macs / self.ms / 1e6 if self.macs and self.ms else None


@dataclass(frozen=True)
class StepCost:
    """A training step: one of G with the steps of D that go with it.

    Attributes:
        step_ms: the median without the profiler. profiled_ms: the mean with it, of which all other
            times are parts.
        layers: of G and of D. parts: milliseconds of what is no layer, by name.
        gmacs_per_s: what the device reaches in a product of two 2048 x 2048 matrices.
        left_out: what these figures do not tell.
    """

    device: str
    precision: str
    batch_size: int
    num_steps: int
    step_ms: float
    profiled_ms: float
    layers: list[LayerCost]
    parts: dict[str, float]
    gmacs_per_s: float
    left_out: list[str]

    @property
    def costliest(self) -> list[LayerCost]:
        """The three that take most."""
        return sorted(self.layers, key=lambda layer: -layer.ms)[:_COSTLIEST]

    def share_of_rate(self, layer: LayerCost) -> float | None:
        """Of the machine's rate; None of a layer that multiplies no matrices."""
        rate = layer.gmacs_per_s
        return None if rate is None else rate / self.gmacs_per_s

    def why(self, layer: LayerCost) -> str:
        """What is known to make a layer dear."""
        found = []
        if layer.weight_ms > 0.1 * layer.ms:
            found.append(f"making its weight takes {layer.weight_ms / layer.ms:.0%} of it")
        if layer.channels is not None and layer.channels < _FEW_CHANNELS:
            found.append(f"output channels ({layer.channels}) do not fill a vector")
        share = self.share_of_rate(layer)
        if share is None:
            found.append("it multiplies no matrices: memory is what it waits for")
        else:
            of_all = layer.macs / sum(other.macs for other in self.layers)
            found.append(f"{of_all:.0%} of all multiply-adds, at {share:.0%} of the rate")
        return "; ".join(found)


def profile_training(config: Config, *, num_steps: int = 5) -> StepCost:
    """Train some steps and tell where their time went; nothing is left on the disk.

    Args:
        config: the recipe; `compile` is taken for "off", since compiled code has no layers.
        num_steps: so many are measured, and as many before without the profiler.

    Raises:
        ConfigError: as of `train`; or several processes are to train.
        CheckpointError, DataError: as of `train`.
    """
    if several_processes():
        raise ConfigError("--profile looks at one process, and found several; leave torchrun out")
    left_out = ["what measuring, sample sheets, checkpoints and trackers take"]
    if config.train.compile != "off":
        left_out.append(f"what compile = {config.train.compile!r} saves: these are eager steps")
    options, device = config.train, pick_device(config.train.device, where=config.where)
    config = _without_interruptions(config)
    rows = {
        f"{network}.{row.name}": row
        for network, summary in zip(("generator", "discriminator"), summarize(config), strict=True)
        for row in summary.rows
    }
    window, names = _Window(num_steps, device), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        train(
            config,
            Path(folder),
            on_start=lambda game: names.extend(mark_layers(game)),
            should_stop=window.next_step,
        )
    layers, parts = spent_by(window.events, on_gpu=device.type == "cuda")
    size = options.microbatch_size or options.batch_size
    costs = [
        _cost(name, layers[name], rows.get(name), size, num_steps)
        for name in names
        if name in layers
    ]
    by_part = {name: spent / num_steps / 1000 for name, spent in parts.items()}
    known = sum(cost.ms for cost in costs) + sum(by_part.values())
    return StepCost(
        device=str(device),
        precision=options.precision,
        batch_size=options.batch_size,
        num_steps=num_steps,
        step_ms=window.plain_ms,
        profiled_ms=window.profiled_ms,
        layers=costs,
        parts={**by_part, "between operations": max(0.0, window.profiled_ms - known)},
        gmacs_per_s=product_gmacs_per_s(device, options.precision),
        left_out=left_out,
    )


def product_gmacs_per_s(device: torch.device, precision: str) -> float:
    """10^9 multiply-accumulates a second of 2048 x 2048 matrices; the best of several."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    matrix = torch.ones(_MATRIX_SIZE, _MATRIX_SIZE, device=device, dtype=dtype)
    times = []
    for _ in range(6):
        began = _now(device)
        matrix @ matrix
        times.append(_now(device) - began)
    return float(_MATRIX_SIZE**3 / min(times) / 1e9)


class _Window:
    """Counts the steps of a run: some to warm up, some with a clock, as many with a profiler."""

    def __init__(self, num_steps: int, device: torch.device) -> None:
        self._num_steps, self._device = num_steps, device
        self._step, self._ticks = 0, list[float]()
        self._profile = profile(record_shapes=True)
        self.plain_ms, self.profiled_ms = 0.0, 0.0
        self.events: list[FunctionEvent] = []

    def next_step(self) -> bool:
        """After a step; True after the last."""
        self._step += 1
        self._ticks.append(_now(self._device))
        if self._step == _WARM_UP + self._num_steps:
            # The median: others may use this machine, too.
            times = [after - before for before, after in itertools.pairwise(self._ticks)]
            self.plain_ms = 1000 * statistics.median(times[-self._num_steps :])
            self._profile.start()
            self._ticks.append(_now(self._device))
        elif self._step == _WARM_UP + 2 * self._num_steps:
            whole = self._ticks[-1] - self._ticks[-1 - self._num_steps]
            self.profiled_ms = 1000 * whole / self._num_steps
            self._profile.stop()
            self.events = list(self._profile.events())  # type: ignore[no-untyped-call]
            return True
        return False


def _now(device: torch.device) -> float:
    """Seconds, when the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _without_interruptions(config: Config) -> Config:
    """The same recipe without what interrupts training now and then."""
    never = dict.fromkeys(("total_kimg", "log_kimg", "sample_kimg", "checkpoint_kimg"), 1e12)
    changed = {**never, "eval_kimg": 0.0, "trackers": [], "compile": "off"}
    return replace(config, train=config.train.model_copy(update=changed))


def _cost(name: str, spent: Spent, row: Row | None, num_images: int, num_steps: int) -> LayerCost:
    """A row of the table; row: of the layer's summary, if it has weights of its own."""
    macs = 0
    if row is not None and spent.forward_products:
        forward = row.macs * num_images * spent.calls
        products = spent.forward_products + spent.backward_products
        macs = round(forward * products / spent.forward_products / num_steps)
    return LayerCost(
        name=name,
        forward_ms=spent.forward_us / num_steps / 1000,
        backward_ms=spent.backward_us / num_steps / 1000,
        weight_ms=spent.weight_us / num_steps / 1000,
        macs=macs,
        channels=row.shape[0] if row is not None and macs else None,
    )
