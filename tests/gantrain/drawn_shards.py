"""Shards for tests: of each format, of images of noise."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def write_tar(path: Path, pictures: list[bytes], labels: list[int] | None) -> None:
    with tarfile.open(path, "w") as archive:
        for number, picture in enumerate(pictures):
            members = [("png", picture)]
            members += [] if labels is None else [("cls", b"%d" % labels[number])]
            for suffix, data in members:
                entry = tarfile.TarInfo(f"{number:05}.{suffix}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def write_parquet(path: Path, pictures: list[bytes], labels: list[int] | None) -> None:
    columns = {"image": pictures} | ({} if labels is None else {"label": labels})
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"), row_group_size=7)


def write_npz(path: Path, pictures: list[bytes], labels: list[int] | None) -> None:
    images = np.stack([np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures])
    more = {} if labels is None else {"labels": np.array(labels)}
    np.savez(path.with_suffix(".npz"), images=images, **more)
    (path.parent / "shards.json").write_text(json.dumps({"classes": ["a", "b", "c"]}))


def write_packed_npz(path: Path, pictures: list[bytes], labels: list[int] | None) -> None:
    write_npz(path, pictures, labels)
    with np.load(path.with_suffix(".npz")) as archive:
        np.savez_compressed(path.with_suffix(".npz"), **archive)


WRITERS = [write_tar, write_parquet, write_npz, write_packed_npz]


def make_shards(
    folder: Path, count: int = 50, *, each: int = 20, write=write_tar, labelled: bool = True
) -> Path:
    """Shards of images of noise, 12x10 pixels, of which each is another."""
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (count, 10, 12, 3), np.uint8)
    for start in range(0, count, each):
        pictures = [png(image) for image in images[start : start + each]]
        labels = [number % 3 for number in range(start, start + len(pictures))]
        write(folder / f"{start:05}.tar", pictures, labels if labelled else None)
    return folder
