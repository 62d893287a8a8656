"""The figures that a run writes while it goes: stats.jsonl."""

import io
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
        self._last = -1, 0  # images_seen of the last record, and where it starts

    def go_on(self, images_seen: int) -> list[dict[str, Any]]:
        """Append from here; what a killed process wrote after `images_seen` is dropped.

        Returns:
            The records that are kept.
        """
        kept = [r for r in read_stats(self._path) if r["images_seen"] <= images_seen]
        lines = [json.dumps(record) + "\n" for record in kept]
        if self._path.exists():
            write_atomic(self._path, "".join(lines).encode())
        self._file = self._path.open("a", encoding="utf-8")
        if kept:
            self._last = kept[-1]["images_seen"], len("".join(lines[:-1]))
        return kept

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; its key images_seen is the step, and a second one replaces the first.

        Raises:
            OSError: it cannot be written; the error names the file.
        """
        assert self._file is not None, "go_on comes first"
        images_seen, start = self._last
        try:
            if record["images_seen"] == images_seen:
                self._file.truncate(start)
            else:
                self._last = record["images_seen"], self._file.seek(0, io.SEEK_END)
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
