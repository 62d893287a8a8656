"""TensorBoard: event files in the run's folder, for `tensorboard --logdir runs`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gantrain.trackers import _base


class Tracker(_base.Tracker):
    """Scalars, pictures, warnings and the recipe; the weights lie beside it anyway."""

    needs = "tensorboard"

    def __init__(self, run: Path, config: Mapping[str, Any], images_seen: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run / "tensorboard"), purge_step=images_seen + 1)
        if not images_seen:
            self._writer.add_text("config", f"```json\n{json.dumps(config, indent=2)}\n```", 0)

    def figures(self, images_seen: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, images_seen)

    def warnings(self, images_seen: int, warnings: list[str]) -> None:
        self._writer.add_text("warnings", "\n\n".join(warnings), images_seen)

    def picture(self, images_seen: int, path: Path) -> None:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._writer.add_image("samples", pixels, images_seen, dataformats="HWC")

    def close(self, ending: _base.Ending) -> None:
        self._writer.close()
