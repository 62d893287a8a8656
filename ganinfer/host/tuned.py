"""What `gan bench --tune` found fastest, for each bundle on each host: a JSON file in the cache."""

import logging
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ganinfer.files import write_atomic
from ganinfer.host.machine import Host, this_host
from ganinfer.record import Record

log = logging.getLogger(__name__)


class Choice(Record):
    """A backend, and how many images/s it gives at 64 a call, alone and compared with another's."""

    backend: str
    device: str
    precision: str
    images_per_s: float
    compared: str

    def __str__(self) -> str:
        rate = f"{self.images_per_s:,.0f} images/s at 64 a call"
        return f"{rate}, {self.compared}" if self.compared else rate


_FILE = TypeAdapter(dict[str, dict[str, Choice]])  # by the manifest's sha256, by host


def remember(sha256: str, host: Host, choice: Choice) -> None:
    """Keep a choice, in place of an older one.

    Args:
        sha256: of the bundle's manifest.
        host: that it was measured on.
        choice: the fastest there.
    """
    choices = _read()
    choices.setdefault(sha256, {})[str(host)] = choice
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _FILE.dump_json(choices, indent=1) + b"\n")


def recall(sha256: str) -> Choice | None:
    """What is the fastest for a bundle on this host, if that was measured with these versions."""
    by_host = _read().get(sha256)
    return by_host.get(str(this_host())) if by_host else None


def _path() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("ganpipe") / "tuned.json"


def _read() -> dict[str, dict[str, Choice]]:
    path = _path()
    try:
        return _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        log.warning("%s: cannot be used, so nothing is tuned: %s", path, error)
        return {}
