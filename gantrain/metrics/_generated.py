"""Images that a generator draws as they are asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ganinfer.drawing.latents import draw_labels, draw_labels_by_counts
from gantrain.metrics._measured import Labels
from gantrain.models._base import DiscriminatorModule, GeneratorModule

_BATCH = 100

Draw = Callable[[Any, Labels], NDArray[Any]]  # seeds (N,), labels (N,) -> images


@dataclass(frozen=True)
class Generated:
    """Images of a generator for seeds; each draws its own label.

    Attributes:
        key: names the generator and all that its images depend on but the seeds.
        seeds: of the images.
        num_classes: K, 0 if it is unconditional.
        draw: seeds and labels -> uint8 (N, H, W, C), or points.
        network: the generator itself, in eval mode, where it is at hand.
        device: of the network.
        open_discriminator: the one that it was trained against, where there is one.
        counts: how often each class is asked for, of sum(counts) images; () for all alike. A
            seed's label depends on the counts and the seed alone.
    """

    key: str
    seeds: range
    num_classes: int
    draw: Draw
    network: GeneratorModule | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    open_discriminator: Callable[[], DiscriminatorModule] | None = None
    counts: tuple[int, ...] = ()

    def asked_by(self, counts: Sequence[int]) -> "Generated":
        """The same generator, asked for each class as often as it counts."""
        if len(set(counts)) == 1:  # the labels that it draws anyway
            return self
        return replace(self, key=f"{self.key} classes {tuple(counts)}", counts=tuple(counts))

    def __len__(self) -> int:
        return len(self.seeds)

    @cached_property
    def labels(self) -> Labels:
        """See Source."""
        return self.labels_of(self.seeds)

    def labels_of(self, seeds: Sequence[int]) -> Labels:
        """The class that each seed is asked for, int64 (N,); None if there are none."""
        if self.counts:
            return draw_labels_by_counts(seeds, self.counts)
        return draw_labels(seeds, self.num_classes) if self.num_classes else None

    def read(self, numbers: range) -> NDArray[Any]:
        """See Source."""
        parts = []
        for start in range(numbers.start, numbers.stop, _BATCH):
            rows = slice(start, min(start + _BATCH, numbers.stop))
            labels = None if self.labels is None else self.labels[rows]
            parts.append(self.draw(self.seeds[rows], labels))
        return np.concatenate(parts)
