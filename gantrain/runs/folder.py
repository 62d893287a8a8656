"""The folder of a run: whose it is, and whether another config may go on in it."""

import json
from pathlib import Path
from typing import Any

from ganinfer.errors import CheckpointError
from ganinfer.files import write_atomic
from gantrain.data.dataset import Dataset
from gantrain.game.config import Config
from gantrain.runs.checkpoint import checkpoint_files

# A run may be prolonged, moved, spread over machines, and watched more or less often.
FREE = {
    "data.path",
    "data.source",
    "data.resolution",
    "train.total_kimg",
    "train.device",
    "train.microbatch_size",
    "train.compile",
    "train.log_kimg",
    "train.sample_kimg",
    "train.checkpoint_kimg",
    "train.keep_checkpoints",
    "train.eval_kimg",
    "train.eval_images",
}


def claim_run_folder(run: Path, config: Config, dataset: Dataset) -> None:
    """Write run/config.json, or check that the run that is there is this one.

    Raises:
        CheckpointError: another config's run is there.
    """
    mine = {"dataset_sha256": dataset.sha256, **config.as_dict()}
    path = run / "config.json"
    if not path.exists() or not checkpoint_files(run):
        run.mkdir(parents=True, exist_ok=True)
        write_atomic(path, (json.dumps(mine, indent=2) + "\n").encode())
        return
    differing = differences(json.loads(path.read_text()), mine)
    if changed := [text for key, text in differing if key not in FREE]:
        raise CheckpointError(
            f"{run}: holds a run of another config; {'; '.join(changed[:3])}."
            " Go on with the old config, or choose another folder with -o"
        )


def differences(old: Any, new: Any, key: str = "") -> list[tuple[str, str]]:
    """Keys that differ between two trees of settings, each with a note of both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            d for k in keys for d in differences(old.get(k), new.get(k), f"{key}.{k}".lstrip("."))
        ]
    return [] if old == new else [(key, f"{key}: it has {old!r}, this config {new!r}")]
