"""An LMDB whose values are encoded pictures, as LSUN is one; other values are counted."""

from pathlib import Path

from ganinfer.errors import DataError, missing_extra
from gantrain.data.names import NaturalKey, natural
from gantrain.data.source import Source


def lmdb_of(path: Path) -> Source:
    """The pictures of the folder that data.mdb lies in, in the order of their keys; unlabelled.

    Raises:
        DataError: it is no LMDB, or holds no pictures.
        MissingExtra: lmdb is not installed.
    """
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise missing_extra("lmdb", error) from None
    try:
        database = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
        with database.begin() as reading, reading.cursor() as cursor:
            found = {bytes(key): _looks_encoded(bytes(value[:16])) for key, value in cursor}
    except (lmdb.Error, OSError) as error:
        raise DataError(f"{path}: cannot be read as an LMDB ({error})") from None
    keys = sorted((key for key, is_picture in found.items() if is_picture), key=_name_order)
    if not keys:
        raise DataError(
            f"{path}: none of its {len(found):,} values is an encoded picture, such as PNG or JPEG"
        )

    def open_one(index: int) -> bytes:
        with database.begin() as reading:
            return bytes(reading.get(keys[index]) or b"")

    left = len(found) - len(keys)
    warnings = [f"left out {left:,} values that are no pictures"] if left else []
    return Source([_name(key) for key in keys], [], None, open_one, (), {}, warnings)


def _name(key: bytes) -> str:
    return key.decode(errors="backslashreplace")


def _name_order(key: bytes) -> NaturalKey:
    return natural(_name(key))


def _looks_encoded(start: bytes) -> bool:
    """By its first bytes, as in a file of this kind."""
    return (
        start.startswith(
            (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")
        )
        or start[4:8] == b"ftyp"
        or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
    )
