"""Datasets of the Hugging Face Hub: their files, as they lie there, and none of their code.

Where the Hub is, who asks and where downloads are kept is huggingface_hub's own business.
"""

import hashlib
import re
from pathlib import Path

from ganinfer.bundle.hub import errors_in_words
from ganinfer.errors import DataError, missing_extra
from ganinfer.files import sha256_file

SCHEME = "hf://"
_NAME = re.compile(r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(@(?P<at>[^/]+))?(/(?P<folder>.+))?")
_NO_DATA = ["*.md", "*.py", ".gitattributes"]


def fetched(source: str) -> Path:
    """A dataset's folder in huggingface_hub's cache, brought up to date if the Hub can be reached.

    Args:
        source: hf://datasets/owner/name, with @revision and with /folder if it is not all wanted.

    Raises:
        DataError: it cannot be had, or is damaged.
        MissingExtra: huggingface_hub is not installed.
    """
    name = _NAME.fullmatch(source)
    if name is None:
        raise DataError(f"{source}: expected hf://datasets/owner/name, and @revision or /folder")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise missing_extra("huggingface_hub", error) from None
    folder = (name["folder"] or "").rstrip("/")
    with errors_in_words(source, DataError):
        snapshot = Path(
            snapshot_download(
                name["repo"],
                repo_type="dataset",
                revision=name["at"],
                allow_patterns=f"{folder}/*" if folder else None,
                ignore_patterns=_NO_DATA,
            )
        )
    if not (snapshot / folder).is_dir():
        raise DataError(f"{source}: no folder {folder} there")
    for file in sorted((snapshot / folder).rglob("*")):
        if file.is_file():
            _check(file, source)
    return snapshot / folder


def _check(file: Path, source: str) -> None:
    """The cache names a file by its sha256, or a small one as git does."""
    told = file.resolve().name
    if re.fullmatch("[0-9a-f]{64}", told):
        found = sha256_file(file)
    elif re.fullmatch("[0-9a-f]{40}", told):
        data = file.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    else:  # a system without links
        return
    if found != told:
        raise DataError(
            f"{source}: {file.resolve()} is damaged; remove it, and it is fetched again"
        )
