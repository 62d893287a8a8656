"""Everything that a run shows of itself while it goes: figures, pictures, warnings, FID.

Only the first process of a run keeps a record; the others may not ask for one.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ganinfer.drawing.images import save_png
from ganinfer.errors import TrainingError
from gantrain.data.dataset import Dataset
from gantrain.distributed import rank
from gantrain.evaluation.references import open_reference
from gantrain.evaluation.scores import score_images, score_network
from gantrain.game.config import TrainConfig
from gantrain.game.parts import Objective
from gantrain.metrics._reference import Reference
from gantrain.models._base import GeneratorModule
from gantrain.runs.checkpoint import checkpoint_files
from gantrain.runs.log import StatsLog
from gantrain.runs.samples import Sheet, draw
from gantrain.training.tracking import Trackers
from gantrain.training.watch import Watch, diversity

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a run stands. stats are means since the last report; warnings and notes are for people.

    A note says what is so, such as what the run begins with; a warning says what goes wrong.
    """

    images_seen: int
    total_images: int
    images_per_s: float
    stats: dict[str, float]
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Recorder:
    """The record of one run."""

    def __init__(
        self,
        run: Path,
        dataset: Dataset,
        options: TrainConfig,
        device: torch.device,
        stats_log: StatsLog,
        trackers: Trackers,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self._run, self._dataset, self._options, self._device = run, dataset, options, device
        self._stats_log, self._trackers, self._on_progress = stats_log, trackers, on_progress
        self._watch, self._writes = Watch(), rank() == 0
        self._sums: dict[str, list[Tensor]] = {}
        self._record: dict[str, float] = {}
        self._last_images, self._last_time = 0, time.monotonic()
        self._reference: Reference | None = None
        self._sheet: Sheet | None = None

    def start(self, images_seen: int) -> None:
        """Begin, or go on from here; what was recorded after it is dropped."""
        if self._writes:
            self._stats_log.go_on(images_seen)
            self._trackers.open(images_seen)
        self._last_images, self._last_time = images_seen, time.monotonic()

    def tell(self, note: str) -> None:
        """Say something once that is no figure."""
        log.info("%s: %s", self._run, note)
        if self._on_progress:
            total = self._options.total_images
            self._on_progress(Progress(self._last_images, total, 0.0, {}, notes=[note]))

    def add(self, **values: Tensor) -> None:
        """Take in figures of one step; they stay on the device, so that no step waits for them."""
        for key, value in values.items() if self._writes else ():
            self._sums.setdefault(key, []).append(value.detach().clone())

    def report(self, images_seen: int, more: dict[str, float]) -> None:
        """Take the means of all figures since the last report into the record.

        Raises:
            TrainingError: one is not finite.
        """
        stats = {**self._means(), **more}
        self.check_finite(images_seen, stats)
        now = time.monotonic()
        images_per_s = (images_seen - self._last_images) / max(now - self._last_time, 1e-9)
        self._sums.clear()
        self._last_images, self._last_time = images_seen, now
        self._record |= {**stats, "images_per_s": images_per_s}

    def picture(self, network: GeneratorModule, images_seen: int) -> None:
        """Save samples, and take into the record how different from each other they are."""
        dataset = self._dataset
        sheet = self._sheet = self._sheet or Sheet(dataset, network.num_classes)
        fake = draw(
            network,
            sheet.seeds,
            sheet.labels,
            truncation=self._options.truncation,
            device=self._device,
        )
        path = self._run / "samples" / f"{images_seen:012d}.png"
        save_png(path, sheet.picture(fake))
        self._trackers.tell(lambda tracker: tracker.picture(images_seen, path))
        self._record |= diversity(fake, sheet.real, sheet.labels)
        if dataset.points is not None:
            reference = open_reference(dataset, device=self._device)
            points = [(fake.transpose(0, 2, 3, 1), None)]
            self._record |= score_images(points, reference, metrics=["modes"]).values

    def measure(self, network: GeneratorModule) -> float:
        """Take scores over eval_images images into the record; returns the FID."""
        if self._reference is None:
            self._reference = open_reference(self._dataset, device=self._device)
        stats = score_network(
            network,
            self._reference,
            num_images=self._options.eval_images,
            truncation=self._options.truncation,
            device=self._device,
        )
        self._record |= stats
        return stats["fid"]

    def write(self, images_seen: int) -> None:
        """Write the record, if there is anything in it, with what it gives reason to warn of."""
        if not self._record:
            return
        stats, total = dict(self._record), self._options.total_images
        warnings = self._watch.look(stats, share_done=images_seen / total)
        self._record.clear()
        self._trackers.tell(lambda tracker: tracker.figures(images_seen, stats))
        if warnings:
            self._trackers.tell(lambda tracker: tracker.warnings(images_seen, warnings))
        warnings = [*warnings, *self._trackers.failures]
        self._trackers.failures.clear()
        record = {"images_seen": images_seen, **stats}
        self._stats_log.write(record | ({"warnings": warnings} if warnings else {}))
        images_per_s = stats.pop("images_per_s", 0.0)
        if self._on_progress and (images_per_s or warnings):
            self._on_progress(Progress(images_seen, total, images_per_s, stats, warnings))

    def end(self, *, finished: bool) -> None:
        """Give the trackers what a finished run ends with."""
        best = self._run / "best.safetensors"
        path = best if best.exists() else checkpoint_files(self._run)[-1]
        if finished:
            self._trackers.tell(lambda tracker: tracker.weights(path))
        self._trackers.ends("finished" if finished else "stopped")

    def check_finite(self, images_seen: int, figures: dict[str, float] | None = None) -> None:
        """Raise a TrainingError if a figure (by default, of those since the last report) is not."""
        figures = self._means() if figures is None else figures
        if bad := [
            f"{key} is {value}" for key, value in figures.items() if not math.isfinite(value)
        ]:
            files = checkpoint_files(self._run)
            kept = f"the last good checkpoint is {files[-1]}" if files else "no checkpoint was made"
            raise TrainingError(
                f"{self._run}: after {images_seen} images {', '.join(bad)}; {kept}."
                " Lower the learning rates, or use precision = 'fp32', and start anew with -o"
            )

    def _means(self) -> dict[str, float]:
        return {key: float(torch.stack(v).mean()) for key, v in self._sums.items()}


@torch.no_grad()
def game_figures(
    objective: Objective, real_logits: Tensor, fake_logits: Tensor
) -> dict[str, Tensor]:
    """How the game stands for D, after one of its steps; logits (N,) of the step's batch.

    real_logits, fake_logits: their means, and logit_gap their difference. Where D = sigmoid(logit):
    d_real = E D(x), d_fake = E D(G(z)), value = E log D(x) + E log(1 - D(G(z))) (1406.2661,
    equation 1), and value_above_optimum its distance from -log 4, where p_g = p_data.
    """
    real, fake = real_logits.mean(), fake_logits.mean()
    figures = {"real_logits": real, "fake_logits": fake, "logit_gap": real - fake}
    if objective.log_odds:
        value = -(softplus(-real_logits).mean() + softplus(fake_logits).mean())
        figures |= {
            "d_real": real_logits.sigmoid().mean(),
            "d_fake": fake_logits.sigmoid().mean(),
            "value": value,
            "value_above_optimum": value + math.log(4),
        }
    return figures


def gradient_norm(network: nn.Module) -> Tensor:
    """Euclidean norm of the gradients of all parameters."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))
    return total
