"""A stage's process: it runs rows one after the other and tells each to the command.

It ends with the command that started it, also after `kill -9`: the command holds its stdin open.
"""

import importlib
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

Values = dict[str, Any]


class OutOfTime(Exception):
    """No row begins any more."""


class Skip(Exception):
    """This machine cannot; why."""


class Fails(Exception):
    """A check that does not hold; why, and what was found."""

    def __init__(self, why: str, values: Values) -> None:
        super().__init__(why)
        self.values = values


@dataclass(frozen=True)
class Day:
    """What a stage knows.

    Attributes:
        device: "cuda" or "cpu". cache: folder of runs, bundles, datasets. data: given datasets.
        deadline: by time.time(). finished: names of rows that are there already.
    """

    stage: str
    device: str
    cache: Path
    data: Path | None
    deadline: float
    finished: frozenset[str]
    channel: TextIO

    @property
    def on_card(self) -> bool:
        return self.device == "cuda"

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.time()

    def tell(self, **event: Any) -> None:
        self.channel.write(json.dumps(event) + "\n")
        self.channel.flush()

    def begin(self, name: str, limit_s: float) -> bool:
        """Announce a row, of so many seconds at most; False if it is there already.

        Raises:
            OutOfTime: it is too late to begin.
        """
        if name in self.finished:
            return False
        if self.seconds_left < 3:
            raise OutOfTime
        self.tell(begin=name, limit_s=limit_s)
        return True

    def end(self, name: str, status: str, why: str, values: Values, seconds: float) -> None:
        self.tell(row=name, status=status, why=why, values=plain(values), seconds=round(seconds, 2))

    def row(self, name: str, work: Callable[[], Values], *, limit_s: float = 60.0) -> None:
        """Run a row, unless it is there: its values, or why there are none.

        An error of the row's is a row, not the end of the stage.
        """
        if not self.begin(name, limit_s):
            return
        start = time.monotonic()
        status, why, values = "ok", "", {}
        try:
            values = work()
        except Skip as reason:
            status, why = "skipped", str(reason)
        except Fails as reason:
            status, why, values = "failed", str(reason), reason.values
        except Exception as error:
            traceback.print_exc()
            status, why = "failed", in_a_line(error)
        self.end(name, status, why, values, time.monotonic() - start)


def check(holds: bool, *, found: object, allowed: str, **values: Any) -> Values:
    """A row's values, if what was found is allowed.

    Raises:
        Fails: it is not.
    """
    values = {"found": found, "allowed": allowed, **values}
    if not holds:
        raise Fails(f"found {found}, allowed {allowed}", values)
    return values


def in_a_line(error: BaseException) -> str:
    """What a user would read of a mistake; of another error its class and place, too."""
    from ganinfer.errors import GanError

    text = " ".join(str(error).split())
    if isinstance(error, GanError):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"{type(error).__name__}: {text[:400]} ({place})"


def plain(value: Any) -> Any:
    """Of numbers of all kinds those of JSON, with six digits; what is not finite as text."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, bool | str | None):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.6g}")
    return value if isinstance(value, int) else str(value)


def _end_with_the_command() -> None:
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    told = json.loads(sys.argv[1])
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    with os.fdopen(told["channel"], "w") as channel:
        day = Day(
            stage=told["stage"],
            device=told["device"],
            cache=Path(told["cache"]),
            data=Path(told["data"]) if told["data"] else None,
            deadline=told["deadline"],
            finished=frozenset(told["finished"]),
            channel=channel,
        )
        try:
            importlib.import_module(f"gpu_day.{day.stage}").run(day)
        except OutOfTime:
            return
        except Exception as error:
            traceback.print_exc()
            day.end("the stage itself", "died", in_a_line(error), {}, 0.0)
        day.tell(complete=True)
