import gzip
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganinfer.errors import ConfigError, DataError
from gantrain.data.dataset import Dataset
from gantrain.data.prepare import prepare

RNG = np.random.default_rng(0)


def picture(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    width, height = size
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8), mode)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    source = tmp_path / "photos"
    for name in ("cat", "dog"):
        (source / name).mkdir(parents=True)
        for n in range(3):
            picture((8, 8)).save(source / name / f"{n}.png")
    return source


def test_digits_are_sklearns(tmp_path: Path) -> None:
    made = prepare("digits", tmp_path / "digits")
    dataset = Dataset(tmp_path / "digits")
    assert (made.num_images, made.width, made.channels) == (1797, 8, 1)
    assert dataset.images.max() == 255
    assert dataset.images.shape == (1797, 8, 8, 1)
    assert np.bincount(dataset.labels).min() > 170


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_keep_every_byte(tmp_path: Path, suffix: str) -> None:
    images, labels = RNG.integers(0, 256, (7, 12, 12)), np.array([0, 1, 2, 0, 1, 2, 2])
    for split, offset in (("train", 0), ("t10k", 1)):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte{suffix}", (images + offset) % 256)
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte{suffix}", labels)
    for split, offset in (("train", 0), ("test", 1)):
        prepare(str(tmp_path), tmp_path / "out" / split, split=split)
        dataset = Dataset(tmp_path / "out" / split)
        assert np.array_equal(dataset.images[..., 0], (images + offset) % 256)
        assert np.array_equal(dataset.labels, labels)


def test_class_folders_give_labels(class_folders: Path, tmp_path: Path) -> None:
    prepare(str(class_folders), tmp_path / "data")
    dataset = Dataset(tmp_path / "data")
    assert dataset.classes == ["cat", "dog"]
    assert list(dataset.labels) == [0, 0, 0, 1, 1, 1]
    expected = pixels(class_folders / "dog" / "1.png")
    assert np.array_equal(dataset.images[4], expected)


def test_a_zip_gives_the_same_as_its_folder(class_folders: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for path in sorted(class_folders.rglob("*.png")):
            archive.write(path, path.relative_to(class_folders))
    prepare(str(class_folders), tmp_path / "a")
    prepare(str(tmp_path / "photos.zip"), tmp_path / "b")
    assert Dataset(tmp_path / "a").sha256 == Dataset(tmp_path / "b").sha256


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    picture((8, 8), "L").save(tmp_path / "flat" / "a.png")
    made = prepare(str(tmp_path / "flat"), tmp_path / "data")
    assert (made.classes, made.channels) == ([], 1)
    assert Dataset(tmp_path / "data").labels is None


@pytest.mark.parametrize(
    ("label_bytes", "files", "test_file"),
    [
        (1, [f"data_batch_{n}.bin" for n in range(1, 6)], "test_batch.bin"),
        (2, ["train.bin"], "test.bin"),
    ],
)
def test_cifar_binary(tmp_path: Path, label_bytes: int, files: list[str], test_file: str) -> None:
    for n, name in enumerate([*files, test_file]):
        records = RNG.integers(0, 256, (4, label_bytes + 3072), dtype=np.uint8)
        records[:, :label_bytes] = [[n] * label_bytes] * 4
        records.tofile(tmp_path / name)
    prepare(str(tmp_path), tmp_path / "out")
    dataset = Dataset(tmp_path / "out")
    assert dataset.images.shape == (4 * len(files), 32, 32, 3)
    assert dataset.classes == [str(n) for n in range(len(files))]
    assert dataset.labels[-1] == len(files) - 1
    first = np.fromfile(tmp_path / files[0], np.uint8)[label_bytes : label_bytes + 3072]
    assert np.array_equal(dataset.images[0], first.reshape(3, 32, 32).transpose(1, 2, 0))


def test_resolution_crops_the_centre_and_resizes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "in" / "wide.png")
    picture((50, 40)).save(tmp_path / "in" / "z.jpg")
    made = prepare(str(tmp_path / "in"), tmp_path / "data", resolution=5, grayscale=True)
    assert (made.width, made.height, made.channels) == (5, 5, 1)
    assert (Dataset(tmp_path / "data").images[0] == 200).all()


def test_broken_images_are_named_and_skipped(class_folders: Path, tmp_path: Path) -> None:
    (class_folders / "cat" / "1.png").write_bytes(b"not an image")
    made = prepare(str(class_folders), tmp_path / "data")
    assert made.skipped == {"cat/1.png": "not an image, or damaged at its beginning"}
    assert list(Dataset(tmp_path / "data").labels) == [0, 0, 1, 1, 1]


def test_one_colour_image_makes_a_colour_set(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture((8, 8), "L").save(tmp_path / "in" / "a.png")
    picture((8, 8)).save(tmp_path / "in" / "b.png")
    made = prepare(str(tmp_path / "in"), tmp_path / "data")
    assert (made.num_images, made.channels) == (2, 3)
    assert np.array_equal(Dataset(tmp_path / "data").images[1], pixels(tmp_path / "in" / "b.png"))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    deep = np.full((8, 8), 30000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "in" / "a.png")
    prepare(str(tmp_path / "in"), tmp_path / "data")
    assert (Dataset(tmp_path / "data").images == 30000 >> 8).all()


def test_hidden_files_are_no_images(class_folders: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as archive:
        for path in sorted(class_folders.rglob("*.png")):
            archive.write(path, path.relative_to(class_folders))
            archive.writestr(f"__MACOSX/{path.parent.name}/._{path.name}", b"x")
    made = prepare(str(tmp_path / "mac.zip"), tmp_path / "data")
    assert (made.classes, made.skipped) == (["cat", "dog"], {})


@pytest.mark.parametrize("split", ["test", "tset"])
def test_a_split_that_is_not_there_is_refused(class_folders, tmp_path, split: str) -> None:
    with pytest.raises((ConfigError, DataError), match=f"split '{split}'"):
        prepare(str(class_folders), tmp_path / "data", split=split)
    with pytest.raises((ConfigError, DataError), match=f"split '{split}'"):
        prepare("digits", tmp_path / "data", split=split)


def test_an_empty_folder_takes_a_dataset_and_the_one_of_the_command_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.DS_Store").touch()
    assert prepare("digits", tmp_path / "data").num_images == 1797
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="expected a folder of the dataset's own"):
        prepare("digits", Path())


def test_another_programs_dataset_folder_is_never_replaced(class_folders: Path) -> None:
    (class_folders / "dataset.json").write_text('{"labels": null}')
    with pytest.raises(DataError, match="is not a dataset of ours"):
        prepare("digits", class_folders)
    assert (class_folders / "cat" / "0.png").exists()


def test_strict_refuses_a_broken_image_and_leaves_nothing(
    class_folders: Path, tmp_path: Path
) -> None:
    (class_folders / "dog" / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"dog/2.png: broken image"):
        prepare(str(class_folders), tmp_path / "data", strict=True)
    assert os.listdir(tmp_path) == ["photos"]


def test_images_of_two_sizes_need_a_resolution(class_folders: Path, tmp_path: Path) -> None:
    picture((9, 9)).save(class_folders / "dog" / "x.png")
    with pytest.raises(DataError, match=r"dog/x.png: 9x9.*--resolution"):
        prepare(str(class_folders), tmp_path / "data")


def test_a_killed_preparation_goes_on(class_folders, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gantrain.data.decoding._IMAGES_A_STEP", 2)
    (class_folders / "cat" / "0.png").write_bytes(b"broken")
    seen = []

    def stop_after_four(done: int, total: int) -> None:
        seen.append(done)
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(str(class_folders), tmp_path / "data", progress=stop_after_four)
    assert not (tmp_path / "data").exists()
    # What lies before the note is not read again.
    (class_folders / "cat" / "2.png").unlink()
    (class_folders / "cat" / "2.png").write_bytes(b"changed")
    made = prepare(str(class_folders), tmp_path / "data", progress=lambda d, t: seen.append(d))
    assert seen == [2, 4, 6]
    assert made.num_images == 5
    dataset = Dataset(tmp_path / "data")
    assert np.array_equal(dataset.images[4], pixels(class_folders / "dog" / "2.png"))
    assert not (tmp_path / ".data.partial").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "no such file or folder"),
        ("x.txt", b"hello", "not a format"),
        ("x.zip", b"hello", "cannot be read as a zip"),
        ("x.npz", b"hello", "does not begin as an .npz"),
        ("a-images-idx3-ubyte", b"\x00\x00\x08\x01hello", "no IDX file"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path: Path, name, content, message) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        prepare(str(tmp_path / name), tmp_path / "data")


def test_a_pickled_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", images=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="without pickles"):
        prepare(str(tmp_path / "evil.npz"), tmp_path / "data")


def test_a_folder_that_is_no_dataset_is_never_replaced(class_folders: Path) -> None:
    with pytest.raises(DataError, match="is not a dataset"):
        prepare(str(class_folders), class_folders)
    assert (class_folders / "cat" / "0.png").exists()


def test_the_description_carries_classes_and_hash(class_folders: Path, tmp_path: Path) -> None:
    prepare(str(class_folders), tmp_path / "data")
    description = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert description["classes"] == ["cat", "dog"]
    assert len(description["sha256"]) == 64


def test_another_dataset_is_replaced_only_if_that_is_asked_for(
    class_folders: Path, tmp_path: Path
) -> None:
    prepare("digits", tmp_path / "data", resolution=16)
    old = Dataset(tmp_path / "data").sha256
    prepare("digits", tmp_path / "data", resolution=16)  # the same
    for source, options, words in (
        (class_folders, {}, "holds another dataset, of digits; source: .*photos"),
        ("digits", {"resolution": 8}, r"height and width: it has \(16, 16\), asked for \(8, 8\)"),
        ("digits", {"stack": True}, "stacked: it has False, asked for True"),
        ("ring8", {}, "source: it has digits, asked for ring8"),
    ):
        with pytest.raises(DataError, match=f"{words}.*--overwrite"):
            prepare(str(source), tmp_path / "data", **options)
    assert Dataset(tmp_path / "data").sha256 == old
    prepare(str(class_folders), tmp_path / "data", overwrite=True)
    assert Dataset(tmp_path / "data").classes == ["cat", "dog"]
    (tmp_path / "data" / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="or a damaged one; .*--overwrite"):
        prepare("digits", tmp_path / "data")
    prepare("digits", tmp_path / "data", overwrite=True)
    (tmp_path / "data" / "mine.txt").touch()
    with pytest.raises(DataError, match="not a dataset of ours; choose another folder"):
        prepare("digits", tmp_path / "data", overwrite=True)
