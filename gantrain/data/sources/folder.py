"""A folder of pictures, with links followed."""

import os
from pathlib import Path

from gantrain.data.names import is_litter, is_picture
from gantrain.data.sources.trees import Tree

MAX_BYTES = 2**31  # of a picture's file


def folder(path: Path) -> Tree:
    """All files under a folder; links are followed, but into no folder that they lie in."""
    names: list[str] = []
    folders: list[str] = []
    skipped: dict[str, str] = {}

    def walk(at: Path, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        try:
            entries = sorted(os.scandir(at), key=lambda entry: entry.name)
        except OSError as error:
            skipped[prefix or str(at)] = f"cannot be listed ({error.strerror})"
            return
        for entry in entries:
            name = prefix + entry.name
            if is_litter(name):
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:  # links in a circle
                skipped[name] = f"cannot be opened ({error.strerror})"
                continue
            if is_folder:
                found = entry.stat()  # of what a link leads to
                if (found.st_dev, found.st_ino) in above:
                    skipped[name] = "a link to a folder that it lies in"
                    continue
                folders.append(name)
                walk(Path(entry.path), f"{name}/", above | {(found.st_dev, found.st_ino)})
            elif is_file:
                names.append(name)
            elif is_picture(name):
                link = entry.is_symlink()
                skipped[name] = "a link to what is not there" if link else "not a regular file"

    top = path.stat()
    walk(path, "", frozenset({(top.st_dev, top.st_ino)}))
    return Tree(str(path), names, lambda name: read_file(path / name), folders, skipped, path)


def read_file(file: Path) -> bytes:
    """A picture's file.

    Raises:
        ValueError: it is far too large for one. OSError: it cannot be read.
    """
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"a file of {size:,} bytes, more than {MAX_BYTES:,}")
    return file.read_bytes()
