"""What was found, row by row, in one JSON file that is always whole."""

import json
from pathlib import Path
from typing import Any

from ganinfer.errors import RequestError
from ganinfer.files import write_atomic

FORMAT = 1
DONE = ("ok", "failed", "skipped")  # one that is "partial", or "died" once, runs again
MOST_DEATHS = 2

Row = dict[str, Any]


class Results:
    """Stages and their rows.

    A row is {"status", "why", "values", "seconds", "deaths"}. Its status: "ok"; "failed", a check
    that does not hold or an error; "skipped", this machine cannot; "partial", it goes on in the
    next call; "died", its process ended or hung, for so many times by now.
    """

    def __init__(self, path: Path, tree: dict[str, Any]) -> None:
        self._path, self.tree = path, tree

    @classmethod
    def open(cls, path: Path, device: str, older: Path | None) -> "Results":
        """The results in a folder; else those taken over from an older file; else none.

        Raises:
            RequestError: a file that is no such JSON, or of another device.
        """
        source = path if path.exists() or older is None else older
        if source.exists() or source is older:
            return cls(path, read(source, device))
        return cls(path, {"format": FORMAT, "device": device, "complete": [], "stages": {}})

    def rows(self, stage: str) -> dict[str, Row]:
        """Name -> row, in the order in which they came."""
        rows: dict[str, Row] = self.tree["stages"].setdefault(stage, {})
        return rows

    def put(self, stage: str, name: str, row: Row) -> None:
        """Take in a row and write the file."""
        deaths = self.rows(stage).get(name, {}).get("deaths", 0)
        self.rows(stage)[name] = row | {"deaths": deaths + (row["status"] == "died")}
        self.save()

    def died(self, stage: str, name: str, why: str) -> None:
        """A row's process is gone; what it had told stays."""
        known = {"values": {}, "seconds": 0.0} | self.rows(stage).get(name, {})
        self.put(stage, name, known | {"status": "died", "why": why})

    def save(self) -> None:
        write_atomic(self._path, json.dumps(self.tree, indent=1).encode() + b"\n")

    def finished(self, stage: str) -> list[str]:
        """Rows that are not run again."""
        return [
            name
            for name, row in self.rows(stage).items()
            if row["status"] in DONE or (row["status"] == "died" and row["deaths"] >= MOST_DEATHS)
        ]

    def complete(self, stage: str) -> None:
        """A stage has come to its end."""
        self.tree["complete"] = sorted({*self.tree["complete"], stage})
        self.save()

    def has_all(self, stage: str) -> bool:
        """Is there nothing left to run of a stage?"""
        return stage in self.tree["complete"] and len(self.rows(stage)) == len(self.finished(stage))

    def forget_unproven(self) -> None:
        """Let rows run again that failed, or were skipped for want of something."""
        for stage, rows in self.tree["stages"].items():
            proven = {n: row for n, row in rows.items() if row["status"] in ("ok", "partial")}
            if len(proven) < len(rows):
                self.tree["stages"][stage] = proven
                self.tree["complete"] = [name for name in self.tree["complete"] if name != stage]

    def count(self, *statuses: str) -> int:
        rows = (row for rows in self.tree["stages"].values() for row in rows.values())
        return sum(row["status"] in statuses for row in rows)


def read(path: Path, device: str) -> dict[str, Any]:
    """An older file's tree.

    Raises:
        RequestError: see `Results.open`.
    """
    try:
        tree: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read as results of gpu_day: {error}") from None
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise RequestError(f"{path}: expected results of gpu_day of format {FORMAT}")
    if tree["device"] != device:
        raise RequestError(
            f"{path}: holds results of {tree['device']}, and --device is {device}; use another"
            " folder"
        )
    return tree
