"""Parquet files, as the Hugging Face Hub has them: a column of images, one of labels."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganinfer.errors import DataError, missing_extra
from gantrain.data.sources.parts import Part


def parquet(file: Path) -> Part:
    """A column of images: files, alone or beside their paths, as the Hub has them."""
    try:
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise missing_extra("pyarrow", error) from None
    try:
        with pq.ParquetFile(file) as opened:
            schema, groups = opened.schema_arrow, opened.metadata.num_row_groups
            counts = [opened.metadata.row_group(i).num_rows for i in range(groups)]
            _, label, classes = _columns(file, schema)
            labels = opened.read([label])[label].to_pylist() if label else None
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise DataError(f"{file}: cannot be read as Parquet ({error})") from None
    if labels is not None and None in labels:
        raise DataError(f"{file}: {label}: row {labels.index(None)} has none")
    places = np.array([(i, row) for i in range(groups) for row in range(counts[i])], np.int64)
    places = places.reshape(-1, 2)

    def open_one(index: int) -> bytes:
        return read_parquet(file, places[index : index + 1])[0]

    names = [f"{file.name}[{i}]" for i in range(len(places))]
    return Part(names, labels, open_one, classes, places, places[:, 0])


def read_parquet(file: Path, places: NDArray[np.int64]) -> list[bytes]:
    """The pictures' files at these groups and rows (n, 2); empty where only a name is given."""
    rows = [_rows_of(file, group)[row] for group, row in places.tolist()]
    return [bytes((row["bytes"] if isinstance(row, dict) else row) or b"") for row in rows]


@lru_cache(maxsize=1)
def _rows_of(file: Path, group: int) -> list[Any]:
    """The images of a group of rows; those of the one before are let go."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        column, _, _ = _columns(file, opened.schema_arrow)
        found: list[Any] = opened.read_row_group(group, [column])[column].to_pylist()
    return found


def _columns(file: Path, schema: Any) -> tuple[str, str | None, list[str]]:
    """The columns of images and labels, and the names of the classes."""
    told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = told.get("info", {}).get("features", {})
    kinds = {name: one.get("_type") for name, one in features.items() if isinstance(one, dict)}
    images = [name for name in schema.names if kinds.get(name) == "Image"]
    images = images or [name for name in ("image", "img") if name in schema.names]
    labels = [name for name in schema.names if kinds.get(name) == "ClassLabel"]
    labels = labels or [name for name in ("label",) if name in schema.names]
    if len(images) != 1 or len(labels) > 1:
        raise DataError(
            f"{file}: found the columns {', '.join(schema.names)}; expected one of images, called"
            " image, and at most one of labels, called label"
        )
    if not labels:
        return images[0], None, []
    return images[0], labels[0], list(map(str, features.get(labels[0], {}).get("names", [])))
