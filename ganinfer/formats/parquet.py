"""Parquet as the Hugging Face Hub shows it: image, label, seed and truncation in columns."""

import json
from collections.abc import Iterator
from typing import Any

from ganinfer.errors import missing_extra
from ganinfer.files import Sink
from ganinfer.formats import Batch

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ModuleNotFoundError as error:
    raise missing_extra("pyarrow", error) from None

CHANNELS = (1, 3, 4)
ENCODES = True

_ROW_GROUP_BYTES = 32 << 20  # that a reader holds at once; the Hub's viewer takes up to 100 MB


def pack(batch: Batch) -> pa.RecordBatch:
    """The rows of a batch."""
    pictures = zip(batch.seeds.tolist(), batch.encoding.encode(batch.images), strict=True)
    images = [
        {"bytes": picture, "path": f"{seed:020d}.{batch.encoding.suffix}"}
        for seed, picture in pictures
    ]
    columns: dict[str, Any] = {"image": pa.array(images, _IMAGE)}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if batch.labels is not None:
        columns["label"] = pa.array(batch.labels, pa.int64())
        features["label"] = {"names": batch.classes, "_type": "ClassLabel"}
    columns["seed"] = pa.array(batch.seeds, pa.uint64())
    features["seed"] = {"dtype": "uint64", "_type": "Value"}
    if batch.truncation is not None:
        columns["truncation"] = pa.array([batch.truncation] * len(images), pa.float64())
        features["truncation"] = {"dtype": "float64", "_type": "Value"}
    told = json.dumps({"info": {"features": features}})
    return pa.RecordBatch.from_pydict(columns, metadata={"huggingface": told})


def write(sink: Sink, parts: Iterator[pa.RecordBatch], count: int) -> None:  # noqa: ARG001
    """A Parquet file, of groups of rows."""
    rows = [next(parts)]
    with pq.ParquetWriter(pa.PythonFile(_Handle(sink), "w"), rows[0].schema) as writer:
        for part in parts:
            if sum(batch.nbytes for batch in rows) + part.nbytes > _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(rows))
                rows = []
            rows.append(part)
        writer.write_table(pa.Table.from_batches(rows))


_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class _Handle:
    """A sink as pyarrow takes files."""

    closed = False

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def write(self, data: Any) -> int:
        return self._sink.write(memoryview(data))

    def tell(self) -> int:
        return self._sink.size

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        self.closed = True
