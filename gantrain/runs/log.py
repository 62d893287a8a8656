"""What a run writes while it goes: stats.jsonl, and TensorBoard where that is installed."""

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from ganinfer.files import write_atomic


class StatsLog:
    """One JSON object a line, each with images_seen; the same figures go to TensorBoard."""

    def __init__(self, run: Path) -> None:
        """The logs of a run; `go_on` opens them."""
        self._run = run
        self._file: TextIO | None = None
        self._board: Any = None

    def go_on(self, images_seen: int) -> None:
        """Append from here; what a killed process wrote after `images_seen` is dropped."""
        path = self._run / "stats.jsonl"
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if _images_seen(line) <= images_seen]
            write_atomic(path, "".join(kept).encode())
        self._file = path.open("a", encoding="utf-8")
        self._board = _tensorboard(self._run / "tensorboard", purge_from=images_seen + 1)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; its key images_seen is the step."""
        assert self._file is not None, "go_on comes first"
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._board is not None:
            for key, value in record.items():
                if isinstance(value, list):
                    self._board.add_text(key, "\n\n".join(value), record["images_seen"])
                elif key != "images_seen":
                    self._board.add_scalar(key, value, record["images_seen"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


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


def _tensorboard(folder: Path, *, purge_from: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=purge_from)
