"""What this host keeps for the next build: engines by their key, timings by version and GPU."""

import logging
from pathlib import Path
from typing import Any

from ganinfer.files import sha256_bytes, write_atomic

log = logging.getLogger(__name__)


def read(file: Path) -> bytes | None:
    """The content of a kept file, if it is whole: its sha256 stands before it."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    digest, content = data[:64], data[64:]
    if sha256_bytes(content).encode() == digest:
        return content
    log.warning("%s: damaged; made anew", file)
    return None


def write(file: Path, content: bytes) -> None:
    """Keep a content; where that cannot be, a line in the log says so."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, sha256_bytes(content).encode() + content)
    except OSError as error:
        log.warning("%s: not kept for the next time (%s)", file, error)


def use_timings(config: Any, file: Path) -> None:
    """Give a builder's config the timings of earlier builds, or none yet.

    Those of another GPU, which TensorRT knows by their header, are left alone.
    """
    timings = config.create_timing_cache(read(file) or b"")
    if timings is None or not config.set_timing_cache(timings, False):
        log.warning("%s: of another GPU or version; not used", file)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def keep_timings(config: Any, file: Path) -> None:
    """Keep what a build has timed, and what it was given."""
    write(file, bytes(config.get_timing_cache().serialize()))
