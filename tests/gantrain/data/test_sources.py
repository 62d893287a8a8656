import csv
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ganinfer.errors import DataError
from gantrain.data.prepare import prepare
from gantrain.data.sources import open_source
from gantrain.data.sources.trees import Labelling

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)
LABELS = np.repeat([0, 2, 10], 8)  # which is not the order of their names as text


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


IN_FOLDERS = {f"{k}/{i}.png": png(IMAGES[i]) for i, k in enumerate(LABELS.tolist())}


def as_folder(at: Path) -> Path:
    for name, data in IN_FOLDERS.items():
        (at / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (at / "top" / name).write_bytes(data)
    return at


def as_zip(at: Path, suffix: str = ".ZIP") -> Path:
    with zipfile.ZipFile(at.with_suffix(suffix), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in IN_FOLDERS.items():
            archive.writestr(name.upper(), data)
    return at.with_suffix(suffix)


def as_tar(at: Path, suffix: str = ".tar", mode: str = "w") -> Path:
    with tarfile.open(at.with_suffix(suffix), mode) as archive:
        for name, data in reversed(IN_FOLDERS.items()):
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return at.with_suffix(suffix)


def as_packed_tar(at: Path) -> Path:
    return as_tar(at, ".tar.gz", "w:gz")


def as_webdataset(at: Path) -> Path:
    with tarfile.open(at.with_suffix(".tar"), "w") as archive:
        for i, image in enumerate(IMAGES):
            for name, data in ((f"{i:06}.png", png(image)), (f"{i:06}.cls", b"%d" % LABELS[i])):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return at.with_suffix(".tar")


def as_parquet(at: Path) -> Path:
    table = {"image": [{"bytes": png(image)} for image in IMAGES], "label": LABELS.tolist()}
    pq.write_table(pa.table(table), at.with_suffix(".parquet"))
    return at.with_suffix(".parquet")


def as_csv(at: Path) -> Path:
    at.mkdir()
    with (at / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label"])
        for i, image in enumerate(IMAGES):
            (at / f"{i}.png").write_bytes(png(image))
            rows.writerow([f"{i}.png", LABELS[i]])
    return at


def as_metadata(at: Path) -> Path:
    at.mkdir()
    lines = []
    for i, image in enumerate(IMAGES):
        (at / f"{i}.png").write_bytes(png(image))
        lines.append(json.dumps({"file_name": f"{i}.png", "label": int(LABELS[i])}))
    (at / "metadata.jsonl").write_text("\n".join(lines))
    return at


def as_stylegan(at: Path) -> Path:
    names = [f"{i // 10:05}/img{i:08}.png" for i in range(len(IMAGES))]
    with zipfile.ZipFile(at.with_suffix(".zip"), "w") as archive:
        for name, image in zip(names, IMAGES, strict=True):
            archive.writestr(name, png(image))
        labels = [[name, label] for name, label in zip(names, LABELS.tolist(), strict=True)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return at.with_suffix(".zip")


def as_npz(at: Path) -> Path:
    np.savez(at.with_suffix(".npz"), IMAGES, LABELS)
    return at.with_suffix(".npz")


def as_npz_of_floats(at: Path) -> Path:
    floats = IMAGES.transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    np.savez(at.with_suffix(".npz"), X_train=floats, trainY=LABELS[:, None], X_test=floats[:2])
    return at.with_suffix(".npz")


WAYS = [
    *(as_folder, as_zip, as_tar, as_packed_tar, as_webdataset, as_parquet, as_csv, as_metadata),
    *(as_stylegan, as_npz, as_npz_of_floats),
]


@pytest.mark.parametrize("way", WAYS)
def test_the_same_pictures_are_the_same_dataset_in_every_form(
    tmp_path: Path, way: Callable[[Path], Path]
) -> None:
    made = prepare(str(way(tmp_path / "pictures")), tmp_path / "data")
    assert (made.classes, made.skipped) == (["0", "2", "10"], {})
    for name, expected in (("images", IMAGES), ("labels", np.repeat(np.arange(3), 8))):
        buffer = io.BytesIO()
        np.save(buffer, expected)
        assert (tmp_path / "data" / f"{name}.npy").read_bytes() == buffer.getvalue()


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    as_folder(tmp_path / "far")
    root = tmp_path / "near"
    (root / "0").mkdir(parents=True)
    (root / "2").symlink_to(tmp_path / "far/top/2")
    (root / "0/a.png").symlink_to(tmp_path / "far/top/0/1.png")
    (root / "0/gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "0/up").symlink_to(root)
    (root / "0/self").symlink_to(root / "0/self")
    os.mkfifo(root / "0/pipe.png")
    source = open_source(str(root))
    assert source.names == ["0/a.png", *(f"2/{i}.png" for i in range(8, 16))]
    assert source.skipped == {
        "0/gone.png": "a link to what is not there",
        "0/pipe.png": "not a regular file",
        "0/self": "cannot be opened (Too many levels of symbolic links)",
        "0/up": "a link to a folder that it lies in",
    }
    assert prepare(str(root), tmp_path / "data").skipped.keys() == source.skipped.keys()
    with pytest.raises(DataError, match=r"gone.png: broken image \(a link to what is not there"):
        prepare(str(root), tmp_path / "again", strict=True)


def test_litter_is_passed_over_and_other_files_are_counted(tmp_path: Path) -> None:
    root = as_folder(tmp_path / "x") / "top"
    for name in ("Thumbs.db", "0/.DS_Store", "@eaDir/0.png/thumb.jpg", "__MACOSX/0/._1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(IN_FOLDERS["0/0.png"])
    for name in ("0/a.svg", "0/b.SVG", "2/raw.cr2", "LICENSE"):
        (root / name).write_bytes(b"")
    source = open_source(str(root))
    assert (len(source.names), source.classes) == (24, ["0", "2", "10"])
    assert source.warnings == ["left out what is no picture: 2 .svg, 1 .cr2, 1 without an ending"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jfif", "JPEG"),
        ("a.TGA", "TGA"),
        ("a.jp2", "JPEG2000"),
        ("a.qoi", "QOI"),
        ("a.dib", "DIB"),
    ],
)
def test_whatever_pillow_reads_is_taken(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(IMAGES[0]).save(tmp_path / "in" / name, kind)
    assert prepare(str(tmp_path / "in"), tmp_path / "data").num_images == 1


def marked(path: Path, *, flag: int = 0, method: int = 8, only: int | None = None) -> None:
    """Change what the members of a zip say of themselves."""
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = number = -1
        while (at := data.find(signature, at + 1)) >= 0:
            number += 1
            if only in (None, number):
                data[at + place] |= flag
                data[at + place + 2] = method
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("marks", "words"), [({"flag": 1}, "encrypted"), ({"method": 9}, "packed by Deflate64")]
)
def test_members_that_cannot_be_unpacked_are_told(tmp_path: Path, marks: dict, words: str) -> None:
    path = as_zip(tmp_path / "x", ".zip")
    whole = path.read_bytes()
    marked(path, **marks, only=1)
    made = prepare(str(path), tmp_path / "data")
    assert made.skipped == {"0/1.PNG": f"{words} in the zip; unpack it and give the folder"}
    assert made.num_images == 23
    path.write_bytes(whole)
    marked(path, **marks)
    with pytest.raises(DataError, match=f"x.zip: .* its pictures are {words}; unpack it"):
        prepare(str(path), tmp_path / "again")
    assert sorted(os.listdir(tmp_path)) == ["data", "x.zip"]


def test_whatever_a_broken_member_raises_it_is_named_and_skipped(tmp_path: Path) -> None:
    path = as_zip(tmp_path / "x", ".zip")
    data = bytearray(path.read_bytes())
    start = data.find(b"IDAT")
    data[start - 30 : start + 20] = bytes(50)
    path.write_bytes(data)
    made = prepare(str(path), tmp_path / "data")
    assert made.skipped.keys() == {"0/0.PNG"}
    described = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert described["skipped"] == made.skipped


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": IMAGES, "b": IMAGES}, r"holds a uint8 \(24, 8, 8, 3\), b .* one array of them"),
        ({"a": IMAGES, "x": LABELS, "y": LABELS}, "expected one array of labels beside a"),
        ({"mu": np.zeros(3), "sigma": np.zeros((3, 3))}, "holds mu float64"),
        ({"a": IMAGES.astype(np.int64) * 2}, "int64 values 0 to 510; expected 0 to 255"),
        ({"a": IMAGES - 300.0}, r"expected \[-1, 1\], \[0, 1\] or \[0, 255\]"),
        ({"a": np.full((2, 8, 8), np.nan)}, "values nan to nan"),
        ({"x_test": IMAGES}, "split 'train': .* has only x_test"),
    ],
)
def test_arrays_that_are_not_clear_are_not_guessed(tmp_path: Path, arrays, words) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=words):
        open_source(str(tmp_path / "x.npz"))


@pytest.mark.parametrize(
    ("array", "expected", "warning"),
    [
        (np.array([0.0, 1.0]), [0, 255], "are taken for [0, 1]"),
        (np.array([-1.0, 1.0], np.float16), [0, 255], "are taken for [-1, 1]"),
        (np.array([0.0, 200.4], np.float32), [0, 200], "are taken for [0, 255]"),
        (np.array([0, 65535], np.uint16), [0, 255], "are 16 bits"),
        (np.array([0, 4095], np.uint16), [0, 15], "less than an eighth of them is used"),
        (np.array([0, 1], np.bool_), [0, 255], ""),
        (np.array([0, 200], np.int64), [0, 200], ""),
    ],
)
def test_the_range_of_arrays_is_a_stated_rule(tmp_path, array, expected, warning: str) -> None:
    np.save(tmp_path / "x.npy", np.broadcast_to(array, (3, 2, 2)))
    source = open_source(str(tmp_path / "x.npy"))
    assert source.read(2).tolist() == [expected, expected]
    assert warning in "".join(source.warnings)
    assert bool(warning) == bool(source.warnings)


def test_alpha_of_arrays_is_composited(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 8, 8), np.uint8))
    assert open_source(str(tmp_path / "x.npy")).read(0)[0, 0].tolist() == [255, 255, 255]


def test_an_lmdb_of_encoded_pictures(tmp_path: Path) -> None:
    database = lmdb.open(str(tmp_path / "x"), map_size=1 << 24)
    with database, database.begin(write=True) as writing:
        for i in range(12):
            writing.put(b"image-%d" % i, png(IMAGES[i]))
        writing.put(b"num-samples", b"12")
    made = prepare(str(tmp_path / "x"), tmp_path / "data")
    assert np.array_equal(np.load(tmp_path / "data" / "images.npy"), IMAGES[:12])
    assert (made.classes, made.warnings) == ([], ["left out 1 values that are no pictures"])
    (tmp_path / "x" / "data.mdb").write_bytes(bytes(64))
    with pytest.raises(DataError, match="cannot be read as an LMDB"):
        open_source(str(tmp_path / "x"))


def test_a_prepared_dataset_is_no_source(tmp_path: Path) -> None:
    prepare(str(as_npz(tmp_path / "x")), tmp_path / "data")
    with pytest.raises(DataError, match="data: is a prepared dataset"):
        open_source(str(tmp_path / "data"))


def test_labels_go_with_pictures_and_can_always_be_left_out(tmp_path: Path) -> None:
    path = as_npz(tmp_path / "x")
    assert open_source(str(path), "train", Labelling(wanted=False)).labels is None
    with pytest.raises(DataError, match="goes with a folder, zip or tar of images"):
        open_source(str(path), "train", Labelling(file=tmp_path / "l.csv"))
