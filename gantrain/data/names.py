"""What the name of a file tells: is it a picture, is it litter, and where does it come in order?"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import PurePosixPath

NaturalKey = tuple[list[tuple[int, int, str]], str]

# Not pictures, or drawn by running another program (EPS by Ghostscript).
_NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"}
# What systems leave beside pictures: macOS, Synology, QNAP, Windows, ext4.
_LITTER_FOLDERS = {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found"}
_LITTER_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}


@cache
def picture_formats() -> tuple[str, ...]:
    """The formats that Pillow decodes here, HEIF among them if its plugin is installed."""
    from PIL import Image

    Image.init()
    try:
        from pillow_heif import register_heif_opener
    except ModuleNotFoundError:
        pass
    else:
        register_heif_opener()
    return tuple(sorted(Image.OPEN.keys() - _NOT_PICTURES))


@cache
def picture_suffixes() -> frozenset[str]:
    """Endings of the names of these formats, lower case: ".png", ".jpg", ".jfif", ..."""
    from PIL import Image

    known = set(picture_formats())
    return frozenset(end for end, kind in Image.registered_extensions().items() if kind in known)


def is_picture(name: str) -> bool:
    """By its ending, in whatever case."""
    return PurePosixPath(name).suffix.lower() in picture_suffixes()


def is_litter(name: str) -> bool:
    """Is it hidden, or something that a system put there?"""
    parts = name.split("/")
    return (
        any(part.startswith(".") or part.lower() in _LITTER_FOLDERS for part in parts)
        or parts[-1].lower() in _LITTER_FILES
    )


def natural(name: str) -> NaturalKey:
    """A key that sorts names as people do: 2 before 10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in parts], name


def counted_suffixes(names: Iterable[str]) -> str:
    """How many files of each ending there are: "3 .txt, 1 .svg"."""
    ends = Counter(PurePosixPath(name).suffix.lower() or "without an ending" for name in names)
    return ", ".join(f"{count:,} {end}" for end, count in ends.most_common())


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first few of many names, and how many more there are; "none" if there are none."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
