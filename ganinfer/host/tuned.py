"""Which backend is fastest for a bundle on a host: what was measured, a JSON file a bundle.

A session is a process and the workers that it starts. What is measured after it began counts from
the next one on, so that a seed's image stays the same within it. Therefore no choice is ever
replaced: a newer one is put after it.
"""

import logging
import time
from datetime import datetime
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from ganinfer.files import write_atomic
from ganinfer.host.machine import Host, this_host
from ganinfer.record import Record

log = logging.getLogger(__name__)

_session = time.time()  # when it began


class Choice(Record):
    """A backend, and how many images/s it gives, alone and compared with another's.

    Attributes:
        batch_size: images a call, at which it was measured.
        compared: as in "1.8x onnxruntime fp32", if there was another.
        asked: by `gan bench --tune`; else in the background, after a bundle was opened.
        measured_at: seconds since 1970.
    """

    backend: str
    device: str
    precision: str
    images_per_s: float
    compared: str
    batch_size: int = 64
    asked: bool = True
    measured_at: float = Field(default_factory=time.time)

    def __str__(self) -> str:
        day = datetime.fromtimestamp(self.measured_at).astimezone().date()
        compared = f", {self.compared}" if self.compared else ""
        return (
            f"{self.images_per_s:,.0f} images/s at {self.batch_size} a call{compared},"
            f" measured here on {day}"
        )


_FILE = TypeAdapter(dict[str, list[Choice]])  # by host, the newest last


def session() -> float:
    """When this one began, in seconds since 1970."""
    return _session


def belong_to(began: float) -> None:
    """Be of an older session, that of the process which started this one."""
    global _session
    _session = min(_session, began)


def remember(sha256: str, host: Host, choice: Choice) -> None:
    """Keep a choice. One that was asked for begins another session here, so that it counts at once.

    Args:
        sha256: of the bundle's manifest.
        host: that it was measured on.
        choice: the fastest there.

    Raises:
        OSError: the cache cannot be written.
    """
    global _session
    path = folder() / f"{sha256}.json"
    choices = _read(path)
    choices.setdefault(str(host), []).append(choice)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _FILE.dump_json(choices, indent=1) + b"\n")
    if choice.asked:
        _session = time.time()


def recall(sha256: str) -> Choice | None:
    """What is the fastest for a bundle on this host, measured with these versions before now.

    Before this session began, that is.
    """
    found = [choice for choice in known(sha256) if choice.measured_at <= _session]
    return found[-1] if found else None


def known(sha256: str) -> list[Choice]:
    """All that was chosen for a bundle on this host with these versions, the newest last."""
    choices = _read(folder() / f"{sha256}.json")
    return choices.get(str(this_host()), []) if choices else []


def folder() -> Path:
    """Where choices are kept."""
    from platformdirs import user_cache_path

    return user_cache_path("ganpipe") / "tuned"


def _read(path: Path) -> dict[str, list[Choice]]:
    try:
        return _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        log.warning("%s: cannot be used, so nothing is tuned: %s", path, error)
        return {}
