"""What TensorRT has timed on this host, for the next build: a file for each version and GPU."""

import logging
from pathlib import Path
from typing import Any

from ganinfer.host import kept

log = logging.getLogger(__name__)


def use_timings(config: Any, file: Path) -> None:
    """Give a builder's config the timings of earlier builds, or none yet.

    Those of another GPU, which TensorRT knows by their header, are left alone.
    """
    timings = config.create_timing_cache(kept.read(file) or b"")
    if timings is None or not config.set_timing_cache(timings, False):
        log.warning("%s: of another GPU or version; not used", file)
        config.set_timing_cache(config.create_timing_cache(b""), False)


def keep_timings(config: Any, file: Path) -> None:
    """Keep what a build has timed, and what it was given."""
    kept.write(file, bytes(config.get_timing_cache().serialize()))
