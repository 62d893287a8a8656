"""Everything that a run shows of itself while it goes: figures, pictures, warnings, FID.

Only the first process of a run keeps a record; the others may not ask for one.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.profiler import record_function

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


_LOOK_S = 1.0  # between two looks at a run


class StoppedError(Exception):
    """The run is to stop while it is measured."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        images_seen, total_images: real ones, shown to D.
        images_per_s: since the last record; 0 while nothing is known.
        stats: means since the last record; of a record all figures, else the losses.
        warnings, notes: for people. A note says what is so, such as what the run begins with; a
            warning says what goes wrong.
        is_record: what is told was written to stats.jsonl; else it is a look in between.
        fid: the last that was measured; None before.
        seconds_left: if the rest goes as fast as what was done; None while nothing is known.
        doing: in words, what it is at if that is not training.
    """

    images_seen: int
    total_images: int
    images_per_s: float
    stats: dict[str, float]
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_record: bool = False
    fid: float | None = None
    seconds_left: float | None = None
    doing: str = ""


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
        self._began, self._looked = (0, self._last_time), -math.inf
        self._fid: float | None = None
        self._measured_at, self._between = 0, _nothing
        self._reference: Reference | None = None
        self._sheet: Sheet | None = None

    def start(self, images_seen: int, *, lacking: bool = False) -> None:
        """Begin, or go on from here; what was recorded after it is dropped.

        lacking: the record of here, if there is one, lacks something that is added now.
        """
        if self._writes:
            records = self._stats_log.go_on(images_seen)
            self._fid = next((r["fid"] for r in reversed(records) if "fid" in r), None)
            if lacking and records and records[-1]["images_seen"] == images_seen:
                apart = ("images_seen", "warnings")
                self._record = {k: v for k, v in records[-1].items() if k not in apart}
            self._trackers.open(images_seen)
        self._last_images, self._last_time = images_seen, time.monotonic()
        self._began = images_seen, self._last_time

    def tell(self, note: str) -> None:
        """Say something once that is no figure."""
        log.info("%s: %s", self._run, note)
        self._show(self._last_images, 0.0, {}, notes=[note])

    def look(self, images_seen: int) -> None:
        """Tell once a second where the run stands; the losses are waited for."""
        now = time.monotonic()
        if self._on_progress and now - self._looked >= _LOOK_S:
            self._looked = now
            images_per_s = (images_seen - self._last_images) / max(now - self._last_time, 1e-9)
            if losses := self._means("loss_d", "loss_g"):
                self._show(images_seen, images_per_s, losses)

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

    def measure(
        self, network: GeneratorModule, images_seen: int, between: Callable[[], None]
    ) -> float:
        """Take scores over eval_images images into the record; returns the FID.

        between: called every second or so; what it raises ends the measurement.
        """
        started, self._measured_at, self._between = time.monotonic(), images_seen, between
        between()
        if self._reference is None:
            self._reference = open_reference(
                self._dataset, device=self._device, progress=self._measuring
            )
        stats = score_network(
            network,
            self._reference,
            num_images=self._options.eval_images,
            truncation=self._options.truncation,
            device=self._device,
            progress=self._measuring,
        )
        self._record |= stats
        self._fid = stats["fid"]
        self._last_time += time.monotonic() - started  # it is no part of the training's speed
        return stats["fid"]

    def _measuring(self, what: str, done: int, total: int) -> None:
        self._between()
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            self._show(self._measured_at, 0.0, {}, doing=f"{what}: {done:,} of {total:,}")

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
        if images_per_s or warnings:
            self._looked = time.monotonic()
            self._show(images_seen, images_per_s, stats, warnings=warnings, is_record=True)

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

    def _means(self, *keys: str) -> dict[str, float]:
        """Of these figures, or of all."""
        chosen = {key: self._sums[key] for key in keys or self._sums if key in self._sums}
        return {key: float(torch.stack(values).mean()) for key, values in chosen.items()}

    def _show(
        self, images_seen: int, images_per_s: float, stats: dict[str, float], **more: Any
    ) -> None:
        if self._on_progress is None:
            return
        total, (first, began) = self._options.total_images, self._began
        left = None
        if images_seen > first:
            missing = max(0, total - images_seen)
            left = (time.monotonic() - began) / (images_seen - first) * missing
        self._on_progress(
            Progress(
                images_seen,
                total,
                images_per_s,
                stats,
                fid=self._fid,
                seconds_left=left,
                **more,
            )
        )


def _nothing() -> None:
    """Between the pieces of a measurement."""


@record_function("figures")
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


@record_function("figures")
def gradient_norm(network: nn.Module) -> Tensor:
    """Euclidean norm of the gradients of all parameters."""
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    total: Tensor = torch.linalg.vector_norm(torch.stack([norm.float() for norm in norms]))
    return total
