"""The labels of pictures: what a file tells of them, and in which order classes stand."""

import csv
import io
import json
import unicodedata
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError
from gantrain.data.names import is_picture, natural

# Beside pictures these are label files without being named: StyleGAN's, Hugging Face's, and ours.
LABEL_FILES = ("dataset.json", "metadata.jsonl", "metadata.csv", "labels.csv")
_FILE_COLUMNS = ("file", "filename", "file_name", "path", "image", "img", "name")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")


def in_order(values: Sequence[str | int]) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the classes in natural order, and which of them each picture has: int64 (N,)."""
    names = [str(value) for value in values]
    classes = sorted(set(names), key=natural)
    index = {name: number for number, name in enumerate(classes)}
    return classes, np.array([index[name] for name in names], np.int64)


def read_label_file(name: str, data: bytes) -> dict[str, str] | None:
    """What a label file tells.

    Args:
        name: of the file; its ending tells the format: .csv or .tsv, with columns such as file and
            label; .jsonl with file_name and label in each line, as Hugging Face has them; .json
            with labels, as StyleGAN's dataset.json.
        data: its content.

    Returns:
        The name of a picture, relative to the file's folder -> of its class; empty if the file is
        about something else. None if it says that there are no labels.

    Raises:
        DataError: it cannot be read, or a picture has two labels or something that is no class.
    """
    try:
        text = data.decode("utf-8-sig")
        match PurePosixPath(name).suffix.lower():
            case ".json":
                pairs = _stylegan(json.loads(text))
            case ".jsonl":
                rows = [json.loads(line) for line in text.splitlines() if line.strip()]
                pairs = _of_rows(
                    name, rows, list(dict.fromkeys(key for row in rows for key in row))
                )
            case ".csv" | ".tsv" | ".txt":
                pairs = _table(name, text)
            case _:
                raise DataError(f"{name}: expected labels in .csv, .tsv, .jsonl or .json")
    except (ValueError, TypeError, AttributeError, LookupError, csv.Error) as error:
        raise DataError(f"{name}: cannot be read as labels ({error})") from None
    if pairs is None:
        return None
    told: dict[str, str] = {}
    for file, label in pairs:
        place = file.replace("\\", "/").removeprefix("./")
        value = _class_name(name, place, label)
        if told.setdefault(place, value) != value:
            raise DataError(f"{name}: {place} has two labels, {told[place]} and {value}")
    return told


def _stylegan(content: Any) -> list[tuple[str, Any]] | None:
    labels = content.get("labels", ()) if isinstance(content, dict) else content
    if labels is None:
        return None
    return list(labels.items()) if isinstance(labels, dict) else [(f, label) for f, label in labels]


def _table(name: str, text: str) -> list[tuple[str, Any]] | None:
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
    if rows and len(rows[0]) == 2 and is_picture(rows[0][0]):  # no header
        return [(row[0], row[1]) for row in rows]
    header = [cell.strip() for cell in rows[0]] if rows else []
    return _of_rows(name, [dict(zip(header, row, strict=False)) for row in rows[1:]], header)


def _of_rows(
    name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> list[tuple[str, Any]] | None:
    file = next((c for c in columns if c.lower() in _FILE_COLUMNS), None)
    label = next((c for c in columns if c.lower() in _LABEL_COLUMNS), None)
    if file is None:
        raise DataError(
            f"{name}: found the columns {', '.join(columns) or 'none'}; expected file and label"
        )
    if label is None:
        return None
    return [(str(row[file]), row.get(label)) for row in rows]


def _class_name(name: str, file: str, label: Any) -> str:
    if label is None or label == "":
        raise DataError(f"{name}: {file} has no label; fill it in, or give --no-labels")
    if isinstance(label, bool) or not isinstance(label, str | int):
        kind = f"{len(label)} numbers" if isinstance(label, list) else str(label)
        raise DataError(
            f"{name}: the label of {file} is {kind}; expected a class, a name or a whole number;"
            " or give --no-labels"
        )
    return str(label).strip()


def matched(
    told: Mapping[str, str], names: Sequence[str], label_file: str, folders: Sequence[str]
) -> tuple[list[str], int]:
    """The class of each picture, and how many labels are left over.

    Args:
        told: what the label file tells.
        names: of the pictures.
        label_file: its name, for messages.
        folders: that the told names may be relative to, each "" or ending in "/"; the first in
            which there is a picture that was told.

    Raises:
        DataError: a picture has no label.
    """
    known = set(names)
    for folder in folders:
        if any(folder + file in known for file in told):
            lacking = [name for name in names if name.removeprefix(folder) not in told]
            if lacking:
                raise DataError(
                    f"{label_file}: {len(lacking):,} of {len(names):,} pictures have no label,"
                    f" {lacking[0]} first; add them, or give --no-labels"
                )
            used = [told[name.removeprefix(folder)] for name in names]
            return used, len(told) - len({name.removeprefix(folder) for name in names})
    example = f" such as {min(told)}" if told else ""
    raise DataError(
        f"{label_file}: none of the {len(told):,} files that it tells of{example} is among the"
        f" pictures, such as {names[0]}; write their names as they are there, or give --no-labels"
    )


def present(
    classes: list[str], counts: NDArray[np.int64]
) -> tuple[list[str], NDArray[np.int64], list[str]]:
    """The classes that have an image, their new numbers, int64 (K,), and the other classes.

    counts: int64 (K,), the images of each.
    """
    there = counts > 0
    names = [name for name, is_there in zip(classes, there, strict=True) if is_there]
    lacking = [name for name, is_there in zip(classes, there, strict=True) if not is_there]
    return names, np.cumsum(there, dtype=np.int64) - 1, lacking


def doubts(classes: Sequence[str]) -> list[str]:
    """What may be wrong with the classes of a set, in words."""
    alike: dict[Hashable, list[str]] = defaultdict(list)
    for name in classes:
        alike[unicodedata.normalize("NFC", name).casefold()].append(name)
    found = [
        f"the classes {' and '.join(names)} differ by case alone; are they two?"
        for names in alike.values()
        if len(names) > 1
    ]
    if len(classes) == 1:
        found.append(f"all pictures are of one class, {classes[0]}; --no-labels makes it none")
    return found
