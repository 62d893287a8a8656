"""API keys in a file: one in each line, but for empty lines and # comments."""

import os
from pathlib import Path

from ganinfer.errors import ConfigError, ConfigNotFound

API_KEY = "GANINFER_API_KEY"  # in the environment: what clients show to a server


def read_api_keys(path: Path) -> list[str]:
    """The keys of a file, at least one.

    Raises:
        ConfigError: it cannot be read, or holds none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        kind = ConfigNotFound if isinstance(error, FileNotFoundError) else ConfigError
        raise kind(f"{path}: expected a text file with an API key in each line: {error}") from None
    keys = [line.strip() for line in lines if line.strip() and line.strip()[0] != "#"]
    if not keys:
        raise ConfigError(f"{path}: found no API key; expected one in each line")
    return keys


def api_key_to_show(path: Path | None) -> str | None:
    """The first key of a file; without a file that of the environment, if there is one.

    Raises:
        ConfigError: the file cannot be read, or holds none.
    """
    if path is not None:
        return read_api_keys(path)[0]
    return next(iter(os.environ.get(API_KEY, "").split()), None)
