"""numpy's archive, uncompressed: images (N, H, W, C), seeds (N,) and, with classes, labels (N,)."""

import io
import zipfile
from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from ganinfer.drawing.latents import Seeds
from ganinfer.files import Sink, npy_header
from ganinfer.formats import Batch


def pack(batch: Batch) -> Batch:
    """Nothing is to be done: pixels are written as they are."""
    return batch


def write(sink: Sink, parts: Iterator[Batch], count: int) -> None:
    """An npz file; of a batch that is written, only seeds and labels are kept."""
    seeds: list[Seeds] = []
    labels: list[NDArray[np.int64]] = []
    # Without `seek`, zipfile puts checksums behind the data instead of going back.
    with zipfile.ZipFile(cast(IO[bytes], sink), "w") as archive:
        with archive.open(_entry("images"), "w", force_zip64=True) as member:
            for part in parts:
                if not seeds:
                    member.write(npy_header((count, *part.images.shape[1:])))
                member.write(part.images.tobytes())
                seeds.append(part.seeds)
                if part.labels is not None:
                    labels.append(part.labels)
        archive.writestr(_entry("seeds"), _npy(np.concatenate(seeds)))
        if labels:
            archive.writestr(_entry("labels"), _npy(np.concatenate(labels)))


def _entry(name: str) -> zipfile.ZipInfo:
    """The same on every day and system."""
    entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()
