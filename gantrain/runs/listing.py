"""The runs that lie in a folder, with their figures, read from what they write anyway."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ganinfer.errors import GanError, RunNotFound
from ganinfer.files import only_writer
from gantrain.runs.checkpoint import checkpoint_files
from gantrain.runs.folder import begins_with
from gantrain.runs.log import read_stats

State = Literal["training", "finished", "stopped"]


@dataclass(frozen=True)
class Listed:
    """A run.

    Attributes:
        path: its folder. model, dataset: by name.
        images_seen: of the newest record or checkpoint. total_images: that it is to see.
        state: "stopped" is whatever trains no more before its end, killed or not.
        fid, best_fid: the last and the least that was measured as it went; None if none was.
        begins_with: the file whose networks it began with, and its kimg where they are known.
    """

    path: Path
    model: str
    dataset: str
    images_seen: int
    total_images: int
    state: State
    fid: float | None
    best_fid: float | None
    begins_with: str | None


def list_runs(folder: Path) -> list[Listed]:
    """Every run in a folder, however deep; the folder may be a run itself.

    Raises:
        RunNotFound: there is no such folder.
    """
    if not folder.is_dir():
        raise RunNotFound(f"{folder}: no folder there; expected one that holds runs")
    return [_listed(run, config) for run, config in _runs(folder)]


def _runs(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    try:
        config = json.loads((folder / "config.json").read_text())
        if {"data", "model", "train"} <= config.keys():
            yield folder, config
            return
    except (OSError, ValueError, AttributeError):
        pass  # no config, or somebody else's
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from _runs(inner)


def _listed(run: Path, config: dict[str, Any]) -> Listed:
    records = read_stats(run / "stats.jsonl")
    fids = [record["fid"] for record in records if "fid" in record]
    seen = [int(path.stem) for path in checkpoint_files(run)[-1:]]
    seen += [record["images_seen"] for record in records[-1:]]
    images_seen, total = max(seen, default=0), math.ceil(1000 * config["train"]["total_kimg"])
    state: State = "finished" if images_seen >= total else "stopped"
    return Listed(
        path=run,
        model=config["model"]["name"],
        dataset=Path(config["data"]["path"]).name,
        images_seen=images_seen,
        total_images=total,
        state="training" if _is_held(run) else state,
        fid=fids[-1] if fids else None,
        best_fid=min(fids, default=None),
        begins_with=begins_with(run),
    )


def _is_held(run: Path) -> bool:
    """Is a process training there just now?"""
    if not (run / "lock").exists():
        return False
    try:
        with only_writer(run):
            return False
    except GanError:
        return True
    except OSError:
        return False  # a folder of somebody else's, whose lock cannot be tried
