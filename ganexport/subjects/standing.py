"""Batch-norm statistics of several truncations in one network, which looks them up by its input.

Brock, Donahue, Simonyan, 1809.11096, appendix I: the statistics of whole latents do not fit
truncated ones, so they are collected anew for each truncation ("standing statistics"). Here a
network takes the truncation of each image, and its norms interpolate between the nearest two rows
of their tables: no branch, so any image of a batch may have its own.

T truncations, C channels, N images.
"""

import copy
import dataclasses
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ganexport.subjects.subject import Subject, with_class_weights
from ganinfer.drawing.latents import draw_labels, draw_latents
from ganinfer.drawing.model import Model, TruncationInput
from ganinfer.errors import ExportError
from ganinfer.progress import Progress
from gantrain.training.standing import collect_statistics

UNTRUNCATED = 4.0  # beyond it lie 6 of 100,000 normal draws
NUM_BATCHES = 32
BATCH_SIZE = 64
_FIRST_SEED = 1 << 35  # no other part of an export looks at these

Tables = dict[str, tuple[Tensor, Tensor]]  # norm -> means, variances (T, C)


def with_standing_statistics(
    subject: Subject,
    truncations: Sequence[float],
    progress: Progress | None = None,
) -> Subject:
    """The same generator with statistics for a list of truncations, mode "resample".

    Args:
        subject: a generator with batch norm and a normal latent.
        truncations: rising, above 0; the untruncated statistics are taken besides.
        progress: called with (what is being done, batches done, batches in all).

    Returns:
        A subject whose network takes z, y if there are classes, and the truncation of each image.

    Raises:
        ExportError: it has no batch norm, another truncation already, or these are no truncations.
    """
    model = subject.model
    if model.truncation_input is not None or "resample" not in model.truncation_modes:
        raise ExportError(
            f"{subject.where}: --standing-statistics goes with a normal latent that is truncated"
            " itself; leave it out"
        )
    largest = model.default_truncation or UNTRUNCATED
    grid = [float(t) for t in truncations]
    if not grid or any(b <= a for a, b in zip([0.0, *grid], [*grid, largest], strict=True)):
        raise ExportError(
            f"--standing-statistics {', '.join(f'{t:g}' for t in grid)}: expected truncations that"
            f" rise, above 0 and below {largest:g}, as in 0.3,0.5,0.7,1"
        )
    grid.append(largest)
    tables = _collect(subject, grid, progress)
    if not tables:
        raise ExportError(
            f"{subject.where}: has no batch norm, and so no --standing-statistics; leave it out"
        )
    taken = TruncationInput(
        least=grid[0], largest=largest, untruncated=largest, statistics=grid[:-1]
    )
    return dataclasses.replace(
        subject,
        network=_installed(copy.deepcopy(subject.network), tables, grid),
        twin=lambda: _installed(subject.twin(), tables, grid),
        model=model.model_copy(
            update={"truncation_modes": ["resample"], "truncation_input": taken}
        ),
    )


def as_shipped(subject: Subject, model: Model) -> Subject:
    """A run's generator as its bundle, of this model, has it: its statistics, its classes."""
    taken = model.truncation_input
    if taken is not None and taken.statistics:
        subject = with_standing_statistics(subject, taken.statistics)
    return with_class_weights(subject) if model.class_input == "weights" else subject


def _collect(subject: Subject, grid: list[float], progress: Progress | None) -> Tables:
    """The statistics of each truncation, over the same seeds."""
    network = copy.deepcopy(subject.network)
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for number, truncation in enumerate(grid):
        names = collect_statistics(network, _batches(subject, truncation))
        for name in names:
            norm = network.get_submodule(name)
            mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            rows.setdefault(name, []).append((mean.clone(), variance.clone()))
        if progress:
            progress("standing statistics", number + 1, len(grid))
    return {
        name: (torch.stack([m for m, _ in pairs]), torch.stack([v for _, v in pairs]))
        for name, pairs in rows.items()
    }


def _batches(subject: Subject, truncation: float) -> Iterator[tuple[Tensor, Tensor | None]]:
    model = subject.model
    bound = None if truncation == UNTRUNCATED else truncation
    for n in range(NUM_BATCHES):
        start = _FIRST_SEED + n * BATCH_SIZE
        seeds = range(start, start + BATCH_SIZE)
        y = draw_labels(seeds, subject.num_classes) if subject.num_classes else None
        z = torch.from_numpy(draw_latents(seeds, model.z_dim, truncation=bound))
        yield z, None if y is None else torch.from_numpy(y)


def _installed(network: nn.Module, tables: Tables, grid: list[float]) -> nn.Module:
    """The network with tables in its norms, behind an input for the truncation."""
    place = Place(grid)
    for name, (means, variances) in tables.items():
        parent, _, own = name.rpartition(".")
        norm = network.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        looked_up = StandingNorm(means, variances, place.found, eps=norm.eps)
        looked_up.weight, looked_up.bias = norm.weight, norm.bias
        setattr(network.get_submodule(parent), own, looked_up)
    return TruncatedNetwork(network, place).eval().requires_grad_(False)


class Found:
    """Where the truncations of the batch at hand lie; written by `Place`, read by every norm."""

    below: Tensor  # int64 (N,), the row before
    share: Tensor  # float32 (N, 1), of the way to the next

    def row(self, table: Tensor) -> Tensor:
        """Rows (T, C) -> (N, C)."""
        below, above = table[self.below], table[self.below + 1]
        return below + self.share * (above - below)


class Place(nn.Module):
    """Truncation (N,) -> its place among T >= 2 rows; what lies outside goes to the nearest end."""

    def __init__(self, grid: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("start", torch.tensor(grid[:-1]))
        self.register_buffer("width", torch.tensor(grid[1:]) - torch.tensor(grid[:-1]))
        self.found = Found()

    def forward(self, truncation: Tensor) -> Tensor:
        start, width = self.get_buffer("start"), self.get_buffer("width")
        place = ((truncation[:, None] - start) / width).clamp(0.0, 1.0).sum(1)
        below = place.floor().clamp(max=len(start) - 1.0)
        self.found.below = below.to(torch.int64)
        self.found.share = (place - below)[:, None]
        return place


class TruncatedNetwork(nn.Module):
    """z (N, Z), y (N,) if there are classes, truncation (N,) -> images (N, C, H, W)."""

    def __init__(self, network: nn.Module, place: Place) -> None:
        super().__init__()
        self.network, self.place = network, place

    def forward(self, z: Tensor, *y_and_truncation: Tensor) -> Tensor:
        *y, truncation = y_and_truncation
        self.place(truncation)
        images: Tensor = self.network(z, *y)
        return images


class StandingNorm(nn.Module):
    """Batch norm by the statistics of each image's truncation: x (N, C, ...) -> the same."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, means: Tensor, variances: Tensor, found: Found, *, eps: float) -> None:
        super().__init__()
        self.register_buffer("means", means)
        self.register_buffer("variances", variances)
        self.register_parameter("weight", None)
        self.register_parameter("bias", None)
        self._eps, self._found = eps, found

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Both (N, C)."""
        variance = self._found.row(self.get_buffer("variances"))
        scale = torch.rsqrt(variance + self._eps)
        shift = -self._found.row(self.get_buffer("means")) * scale
        if self.weight is not None and self.bias is not None:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return scale, shift

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = (
            part.reshape(*part.shape, *[1] * (x.dim() - 2)) for part in self.scale_and_shift()
        )
        return x * scale + shift
