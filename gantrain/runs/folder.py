"""The folder of a run: whose it is, and whether another config may go on in it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ganinfer.errors import CheckpointError, ConfigError
from ganinfer.files import write_atomic
from ganinfer.lookup import suggest
from gantrain.data.dataset import Dataset
from gantrain.game.config import Config, parse_config
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
    "train.trackers",
}

# With --allow it may go on by other rules, too: its weights and its optimizers' moments fit them.
ALLOWABLE = (
    "data.mirror",
    "optimizer.discriminator.learning_rate",
    "optimizer.generator.learning_rate",
    "schedule",
    "train.batch_size",
    "train.channels_last",
    "train.discriminator_steps",
    "train.ema_half_life_kimg",
    "train.ema_ramp_up",
    "train.freeze",
    "train.precision",
    "train.standing_batches",
    "train.truncation",
)


def claim_run_folder(
    run: Path, config: Config, dataset: Dataset, *, allow: Sequence[str] = ()
) -> None:
    """Write run/config.json, or check that the run that is there is this one.

    Args:
        run: the folder. config, dataset: of the run.
        allow: keys of the recipe, or sections, in which they may differ; see ALLOWABLE.

    Raises:
        CheckpointError: another config's run is there.
        ConfigError: a key that cannot be allowed.
    """
    for key in allow:
        if key in FREE:
            raise ConfigError(f"--allow {key}: it may change in any run; leave --allow out")
        if not any(_covers(mutable, key) or _covers(key, mutable) for mutable in ALLOWABLE):
            raise ConfigError(
                f"--allow {key}: no run can go on with another; {suggest(key, [*ALLOWABLE])}"
            )
    mine = {"dataset_sha256": dataset.sha256, **config.as_dict()}
    path, files = run / "config.json", checkpoint_files(run)
    if not path.exists() or not files:
        (run / "history.json").unlink(missing_ok=True)
        _write_json(path, mine)
        return
    saved = json.loads(path.read_text())
    sha256 = saved.pop("dataset_sha256")
    # What it was written without, by an older version, it had by default.
    theirs = {"dataset_sha256": sha256, **parse_config(saved, where=str(path)).as_dict()}
    if config.start is None:  # it is not begun again
        mine["start"] = theirs["start"]
    changed = {key: text for key, text in differences(theirs, mine) if key not in FREE}
    allowable = [key for key in changed if any(_covers(m, key) for m in ALLOWABLE)]
    missing = [key for key in allowable if not any(_covers(asked, key) for asked in allow)]
    refused = [key for key in changed if key not in allowable]
    if found := refused + missing:
        remedy = "" if refused else f", add {' '.join(f'--allow {key}' for key in missing)},"
        raise CheckpointError(
            f"{run}: holds a run of another config; {'; '.join(changed[k] for k in found[:3])}."
            f" Go on with the old config{remedy} or choose another folder with -o"
        )
    if mine != theirs:
        _write_json(path, mine)
    if changed:
        note(run, int(files[-1].stem), {"allowed": [*changed.values()]})


def note(run: Path, images_seen: int, event: dict[str, Any]) -> None:
    """Add to run/history.json: what a run began with, or what it was allowed to change."""
    _write_json(run / "history.json", [*read_history(run), {"images_seen": images_seen, **event}])


def read_history(run: Path) -> list[dict[str, Any]]:
    """What `note` has written, in order; none if there is no file."""
    path = run / "history.json"
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


def begins_with(run: Path) -> str | None:
    """The file whose networks a run began with, and its kimg where they are known."""
    for event in read_history(run):
        if ancestry := event.get("begins_with"):
            seen = ancestry["images_seen"]
            return f"{ancestry['path']}{'' if seen is None else f' at {seen / 1000:g} kimg'}"
    return None


def _write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def _covers(section: str, key: str) -> bool:
    """Is it this key, or within this section?"""
    return f"{key}.".startswith(f"{section}.")


def differences(old: Any, new: Any, key: str = "") -> list[tuple[str, str]]:
    """Keys that differ between two trees of settings, each with a note of both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            d for k in keys for d in differences(old.get(k), new.get(k), f"{key}.{k}".lstrip("."))
        ]
    return [] if old == new else [(key, f"{key}: it has {old!r}, this config {new!r}")]
