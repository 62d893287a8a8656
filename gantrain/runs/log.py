"""The figures that a run writes while it goes: stats.jsonl."""

import json
import math
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from ganinfer.files import write_atomic


class StatsLog:
    """One JSON object a line, each with images_seen."""

    def __init__(self, run: Path) -> None:
        """The log of a run; `go_on` opens it."""
        self._path = run / "stats.jsonl"
        self._file: TextIO | None = None

    def go_on(self, images_seen: int) -> None:
        """Append from here; what a killed process wrote after `images_seen` is dropped."""
        if self._path.exists():
            lines = self._path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if _images_seen(line) <= images_seen]
            write_atomic(self._path, "".join(kept).encode())
        self._file = self._path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; its key images_seen is the step.

        Raises:
            OSError: it cannot be written; the error names the file.
        """
        assert self._file is not None, "go_on comes first"
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as error:
            error.filename = str(self._path)  # the system's word of a full disk names no file
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            with suppress(OSError):  # of a full disk, which has been told
                self._file.close()


def read_stats(path: Path) -> list[dict[str, Any]]:
    """The records of a stats.jsonl, in order; none if there is no file."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if math.isfinite(_images_seen(line))]


def _images_seen(line: str) -> float:
    try:
        return float(json.loads(line)["images_seen"])
    except (ValueError, KeyError):
        return float("inf")  # a line that a kill cut short
