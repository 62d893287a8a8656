"""Weights & Biases: offline in the run's folder, unless WANDB_MODE says online.

`wandb sync RUN/wandb/offline-run-*` uploads it. WANDB_PROJECT and WANDB_ENTITY are looked at, too.
"""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gantrain.trackers import _base


class Tracker(_base.Tracker):
    """One run of W&B, whose steps are images seen."""

    needs = "wandb"

    def __init__(self, run: Path, config: Mapping[str, Any], images_seen: int) -> None:
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":  # reports of errors would be sent all the same
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        number = _base.kept_id(run, "wandb") or uuid.uuid4().hex
        _base.keep_id(run, "wandb", number)
        self._wandb: Any = wandb
        self._run: Any = wandb.init(
            dir=str(run),
            project=os.environ.get("WANDB_PROJECT", "ganpipe"),
            id=number,
            name=run.name,
            config=dict(config),
            resume="allow",
            reinit="create_new",  # a caller's own run stays as it is
            settings=wandb.Settings(
                mode=mode,
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_stats=True,
                x_save_requirements=False,
            ),
        )
        # A figure that comes again after a kill takes the place of the first.
        self._run.define_metric("*", step_metric="images_seen")

    def figures(self, images_seen: int, figures: Mapping[str, float]) -> None:
        self._run.log({"images_seen": images_seen, **figures})

    def warnings(self, images_seen: int, warnings: list[str]) -> None:
        for warning in warnings:
            self._run.alert(title=f"at {images_seen / 1000:g} kimg", text=warning)

    def picture(self, images_seen: int, path: Path) -> None:
        self._run.log({"images_seen": images_seen, "samples": self._wandb.Image(str(path))})

    def weights(self, path: Path) -> None:
        artifact = self._wandb.Artifact(f"weights-{self._run.id}", type="model")
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self, ending: _base.Ending) -> None:
        self._run.finish(exit_code=int(ending == "failed"))
