"""What is measured against what, and both opened."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from ganinfer.progress import Progress
from ganinfer.scheduler.opening import Opening
from gantrain.evaluation.frequencies import Frequencies, asked_as
from gantrain.evaluation.references import reference_of
from gantrain.evaluation.targets import Target, open_target, some_of
from gantrain.metrics._reference import Reference


@dataclass(frozen=True)
class Asked:
    """What is measured against what: the arguments of `evaluate`."""

    path: Path
    data: Path | None
    num_images: int
    seed: int
    truncation: float | None
    class_frequencies: Frequencies
    split: str
    labelled: bool
    extractor: str
    resizer: str | None
    device: torch.device
    cache: Path | None
    opening: Opening | None = None

    @contextmanager
    def opened(
        self, progress: Progress | None = None, *, images: Target | None = None
    ) -> Iterator[tuple[Target, Reference]]:
        """Open it; nothing is drawn yet. images: those of the path, if they are open already."""
        opened = (
            nullcontext(some_of(images, self.num_images))
            if images
            else open_target(
                self.path,
                num_images=self.num_images,
                seed=self.seed,
                truncation=self.truncation,
                labelled=self.labelled,
                device=self.device,
                opening=self.opening,
            )
        )
        with opened as target:
            reference = reference_of(
                target,
                self.data,
                split=self.split,
                labelled=self.labelled,
                extractor=self.extractor,
                resizer=self.resizer,
                device=self.device,
                cache=self.cache,
                progress=progress,
            )
            yield asked_as(target, reference, self.class_frequencies), reference
