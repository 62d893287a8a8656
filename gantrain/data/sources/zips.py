"""A zip of pictures."""

import zipfile
from pathlib import Path

from ganinfer.errors import DataError
from gantrain.data.names import is_picture
from gantrain.data.sources.folder import MAX_BYTES
from gantrain.data.sources.trees import Tree

_METHODS = {
    *(zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA),
    getattr(zipfile, "ZIP_ZSTANDARD", zipfile.ZIP_STORED),  # from Python 3.14 on
}
_NAMES = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd"}


def zip_tree(path: Path) -> Tree:
    """All files in a zip.

    Raises:
        DataError: it is none, or no picture in it can be read without unpacking it.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # whatever a damaged directory leads to
        raise DataError(f"{path}: cannot be read as a zip ({error})") from None
    entries = {entry.filename.replace("\\", "/"): entry for entry in archive.infolist()}
    members = {name: entry for name, entry in entries.items() if not entry.is_dir()}
    reasons = {_unreadable(entry) for name, entry in members.items() if is_picture(name)}
    if reasons and "" not in reasons:
        raise DataError(
            f"{path}: cannot be read: its pictures are {' or '.join(sorted(reasons))}; unpack it"
            " (by 7z x, for example) and give the folder"
        )

    def read(name: str) -> bytes:
        entry = members[name]
        if reason := _unreadable(entry):
            raise ValueError(f"{reason} in the zip; unpack it and give the folder")
        if entry.file_size > MAX_BYTES:
            raise ValueError(f"a file of {entry.file_size:,} bytes, more than {MAX_BYTES:,}")
        return archive.read(entry)

    folders = [name.rstrip("/") for name, entry in entries.items() if entry.is_dir()]
    return Tree(str(path), list(members), read, folders)


def _unreadable(entry: zipfile.ZipInfo) -> str:
    """Why this Python cannot read a member; empty if it can."""
    if entry.flag_bits & 1:
        return "encrypted"
    if entry.compress_type not in _METHODS:
        return f"packed by {_NAMES.get(entry.compress_type, f'method {entry.compress_type}')}"
    return ""
