import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ganinfer import Sampler
from ganinfer.drawing.latents import draw_labels
from ganinfer.errors import DataError
from ganinfer.shards import write_shards
from gantrain.data.prepare import prepare
from gantrain.data.sources import open_source

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def parquet(path: Path, columns: dict, features: dict | None = None) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    told = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    pq.write_table(pa.table(columns).replace_schema_metadata(told), path)
    return path


@pytest.mark.parametrize("kind", ["tar", "parquet", "npz"])
def test_what_was_written_is_prepared_again(bundle: Path, tmp_path: Path, kind: str) -> None:
    with Sampler(bundle) as sampler:
        write_shards(sampler, 25, tmp_path / "shards", format=kind, shard_size=10)
        images, classes = sampler.sample(25), sampler.classes
    made = prepare(str(tmp_path / "shards"), tmp_path / "data")
    assert (made.num_images, made.classes, made.skipped) == (25, classes, {})
    assert np.array_equal(np.load(tmp_path / "data" / "images.npy"), images)
    labels = np.load(tmp_path / "data" / "labels.npy").tolist()
    assert labels == draw_labels(range(25), 3).tolist()


def test_a_webdataset_of_others(tmp_path: Path) -> None:
    members = {
        "a/0001.cls": b"1\n",
        "a/0001.seg.json": b"{}",
        "a/0001.jpeg": png(GREY),
        "b/0001.PNG": png(GREY[::-1]),
        "b/0001.cls": b"0",
    }
    source = open_source(str(tar(tmp_path / "train-0.tar", members)), "train")
    assert source.names == ["train-0.tar/a/0001.jpeg", "train-0.tar/b/0001.PNG"]
    assert (source.labels.tolist(), source.classes) == ([1, 0], ["0", "1"])
    assert np.array_equal(source.read(1), GREY[::-1])


def test_a_dataset_as_the_hub_has_it(tmp_path: Path) -> None:
    picture = {"bytes": png(GREY), "path": "x.png"}
    features = {"img": {"_type": "Image"}, "kind": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    for split, count in (("train", 3), ("test", 1)):
        columns = {"img": [picture] * count, "kind": [1] * count, "label": ["x"] * count}
        parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", columns, features)
    source = open_source(str(tmp_path), "train")
    assert (source.labels.tolist(), source.classes) == ([1, 1, 1], ["cat", "dog"])
    assert np.array_equal(source.read(2), GREY)
    assert len(open_source(str(tmp_path), "test").names) == 1


def test_a_column_of_bare_files_has_no_classes(tmp_path: Path) -> None:
    source = open_source(str(parquet(tmp_path / "x.parquet", {"image": [png(GREY)]})), "train")
    assert source.labels is None
    assert np.array_equal(source.read(0), GREY)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"1.txt": b"a caption"}, "no image files in it; found 1 .txt"),
        (
            {"1.png": png(GREY), "1.jpg": b"", "1.cls": b"0"},
            "1.jpg: a second image of the sample 1",
        ),
        ({"1.png": png(GREY), "1.cls": b"cat"}, "1.cls: expected a class number"),
        ({"1.png": png(GREY), "1.cls": b"-1"}, "found the label -1; expected 0 or more"),
        ({"1.png": png(GREY), "2.png": b"", "2.cls": b"0"}, "sample 1: expected an image and a"),
    ],
)
def test_a_tar_of_something_else_is_refused(tmp_path: Path, members: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_source(str(tar(tmp_path / "x.tar", members)), "train")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"pixels": [b""]}, "found the columns pixels; expected one of images, called image"),
        ({"image": [b""], "label": [None]}, "label: row 0 has none"),
        ({"image": [b""], "label": [0.5]}, "found the label 0.5; expected whole numbers or names"),
    ],
)
def test_a_table_of_something_else_is_refused(tmp_path: Path, columns: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_source(str(parquet(tmp_path / "x.parquet", columns)), "train")


def test_what_is_damaged_is_told_by_its_name(tmp_path: Path) -> None:
    whole = tar(tmp_path / "x.tar", {f"{i}.png": png(GREY) for i in range(40)}).read_bytes()
    (tmp_path / "x.tar").write_bytes(whole[: 30 * 1024])  # where a member ends
    (tmp_path / "w.tar").write_bytes(whole[: 30 * 1024 + 600])
    (tmp_path / "y.parquet").write_bytes(b"PAR1 nothing")
    for name in ("x.tar", "w.tar", "y.parquet"):
        with pytest.raises(DataError, match=f"{name}: cannot be read as"):
            open_source(str(tmp_path / name), "train")
    broken = tar(tmp_path / "z.tar", {"1.png": png(GREY), "2.png": b"none"})
    assert prepare(str(broken), tmp_path / "data").skipped.keys() == {"2.png"}


def test_mixed_folders_are_not_guessed(tmp_path: Path) -> None:
    tar(tmp_path / "a" / "x.tar", {"1.png": png(GREY)})
    (tmp_path / "a" / "preview.png").write_bytes(png(GREY))
    with pytest.raises(DataError, match=r"found .png, .tar files; expected shards of one kind"):
        open_source(str(tmp_path / "a"), "train")
    tar(tmp_path / "b" / "x.tar", {"1.png": png(GREY), "1.cls": b"0"})
    tar(tmp_path / "b" / "y.tar", {"1.png": png(GREY)})
    with pytest.raises(DataError, match="found labels in some shards only"):
        open_source(str(tmp_path / "b"), "train")


def test_other_files_beside_pictures_are_passed_over_as_ever(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(GREY))
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(3))
    assert open_source(str(tmp_path), "train").names == ["1.png"]
