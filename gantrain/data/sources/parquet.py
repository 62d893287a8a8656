"""Parquet files, as the Hugging Face Hub has them: a column of images, one of labels."""

import json
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

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
            image, label, classes = _columns(file, schema)
            labels = opened.read([label])[label].to_pylist() if label else None
    except DataError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise DataError(f"{file}: cannot be read as Parquet ({error})") from None
    if labels is not None and None in labels:
        raise DataError(f"{file}: {label}: row {labels.index(None)} has none")
    starts = list(accumulate(counts, initial=0))

    def read(index: int) -> bytes:
        group = bisect_right(starts, index) - 1
        found = _rows_of(file, group, image)[index - starts[group]]
        data = found["bytes"] if isinstance(found, dict) else found
        if not data:
            raise ValueError("no bytes: the picture lies elsewhere")
        return bytes(data)

    return Part([f"{file.name}[{i}]" for i in range(starts[-1])], labels, read, classes)


@lru_cache(maxsize=1)
def _rows_of(file: Path, group: int, column: str) -> list[Any]:
    """A column of a group of rows; that of the one before is let go."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
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
