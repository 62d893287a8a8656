"""What a host keeps for the next time, and may lose: files that begin with their own sha256."""

import logging
from pathlib import Path

from ganinfer.files import sha256_bytes, write_atomic

log = logging.getLogger(__name__)


def read(file: Path) -> bytes | None:
    """The content of a kept file, if it is there and whole."""
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
