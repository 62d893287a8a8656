"""What a run tells a tracker."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ganinfer.files import write_atomic

Ending = Literal["finished", "stopped", "failed"]


class Tracker:
    """Takes in what a run records, under one id however often the run goes on.

    Any method may raise: the run then goes on without this tracker.

    Attributes:
        needs: import name of the package that it cannot do without; None if it needs none.
    """

    needs: str | None = None

    def __init__(self, run: Path, config: Mapping[str, Any], images_seen: int) -> None:
        """Open it, or go on.

        Args:
            run: folder of the run.
            config: the recipe, as nested sections.
            images_seen: where the run stands; what a killed process told after it comes again.
        """

    def figures(self, images_seen: int, figures: Mapping[str, float]) -> None:
        """Take in figures by name."""
        raise NotImplementedError

    def warnings(self, images_seen: int, warnings: list[str]) -> None:
        """Take in what a person should look at."""

    def picture(self, images_seen: int, path: Path) -> None:
        """Take in a sheet of samples, a png."""

    def weights(self, path: Path) -> None:
        """Take in the checkpoint that a run ends with."""

    def close(self, ending: Ending) -> None:
        """Nothing more comes from this process."""


def kept_id(run: Path, name: str) -> str | None:
    """The id that a tracker has given the run; None if it has given none yet."""
    path = run / "trackers.json"
    found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return found.get(name)


def keep_id(run: Path, name: str, value: str) -> None:
    """Keep the id for the processes that will go on."""
    path = run / "trackers.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    write_atomic(path, (json.dumps(known | {name: value}, indent=2) + "\n").encode())


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one: {"train": {"seed": 0}} -> {"train.seed": 0}."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
