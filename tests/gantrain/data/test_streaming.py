import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_shards import WRITERS, make_shards, png, write_tar
from typer.testing import CliRunner

from ganexport.cli.gan import app
from ganinfer.errors import DataError, RequestError
from gantrain.cli.train import prepare as prepare_command
from gantrain.data import indexing
from gantrain.data.dataset import Dataset
from gantrain.data.indexing import index_shards
from gantrain.data.opening import open_dataset
from gantrain.data.prepare import prepare
from gantrain.data.sources.shards import shard_files
from gantrain.data.windows import StreamedBatches, Windows

CPU = torch.device("cpu")


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("labelled", [True, False])
def test_images_in_their_shards_are_those_that_prepare_copies(
    tmp_path: Path, small_blocks: None, write, labelled: bool
) -> None:
    source = make_shards(tmp_path / "shards", write=write, labelled=labelled)
    told = prepare(str(source), tmp_path / "copied", resolution=(8, 16))
    made = index_shards(source, tmp_path / "streamed", resolution=(8, 16))
    copied, streamed = Dataset(tmp_path / "copied"), Dataset(tmp_path / "streamed")
    assert made.num_images == len(streamed) == 50
    assert made.warnings == told.warnings == streamed.warnings
    assert "enlarged: 50" in made.warnings[0]
    assert (streamed.images.dtype, streamed.images.shape) == (np.uint8, (50, 8, 16, 3))
    assert np.array_equal(streamed.images[:], copied.images)
    rows = np.array([49, 3, 3, 20, 21])
    assert np.array_equal(streamed.images[rows], copied.images[rows])
    assert np.array_equal(streamed.images[7], copied.images[7])
    assert streamed.classes == copied.classes
    assert np.array_equal(streamed.labels, copied.labels) if labelled else streamed.labels is None


def test_broken_images_are_named_and_left_out_or_refused(tmp_path: Path) -> None:
    source = make_shards(tmp_path / "shards", 10, each=10)
    pictures = [png(np.full((10, 12), 7, np.uint8)), b"nothing", b""]
    write_tar(source / "1.tar", pictures, [0, 1, 2])
    made = index_shards(source, tmp_path / "index", resolution=8)
    assert list(made.skipped) == ["1.tar/00001.png", "1.tar/00002.png"]
    dataset = Dataset(tmp_path / "index")
    assert len(dataset) == 11
    assert (dataset.images[10] == 7).all()
    assert dataset.labels is not None
    assert dataset.labels[10] == 0
    with pytest.raises(DataError, match=r"1.tar/00001.png: broken image"):
        index_shards(source, tmp_path / "index", resolution=8, strict=True)
    assert len(Dataset(tmp_path / "index")) == 11


def test_what_cannot_be_streamed_is_refused_in_words(tmp_path: Path) -> None:
    source = make_shards(tmp_path / "shards", 10)
    squares = [png(np.zeros((size, size), np.uint8)) for size in (8, 8, 9)]
    write_tar(tmp_path / "x.tar", squares, [0, 1, 0])
    with pytest.raises(DataError, match=r"00002.png: 9x9 .*, and the first image is 8x8"):
        index_shards(tmp_path / "x.tar", tmp_path / "index")
    write_tar(source / "1.tar", squares, None)
    with pytest.raises(DataError, match=r"labels in some shards only, and 1.tar has none"):
        index_shards(source, tmp_path / "index", resolution=8)
    (tmp_path / "1.png").write_bytes(squares[0])
    with pytest.raises(DataError, match=r"found no shards; expected a folder of tar or Parquet"):
        index_shards(tmp_path / "1.png", tmp_path / "index")
    with pytest.raises(
        RequestError, match="--stream leaves images as they are.* leave out --stack"
    ):
        prepare_command(str(source), tmp_path / "index", stack=True, stream=True)


def test_a_lone_tar_is_streamed_if_it_has_no_classes_or_none_are_wanted(tmp_path: Path) -> None:
    pictures = [png(np.full((8, 8), 20 * n, np.uint8)) for n in range(6)]
    write_tar(tmp_path / "flat.tar", pictures, None)
    flat = open_dataset(tmp_path / "flat.tar")
    assert (len(flat), flat.labels) == (6, None)
    for number, picture in enumerate(pictures):
        place = tmp_path / "tree" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture)
    with tarfile.open(tmp_path / "classes.tar", "w") as archive:
        archive.add(tmp_path / "tree", "tree")
    assert shard_files(tmp_path / "classes.tar") == []
    with pytest.raises(DataError, match="without classes, or with --no-labels"):
        index_shards(tmp_path / "classes.tar", tmp_path / "index")
    for name in ("classes.tar", "with.tar"):
        write_tar(tmp_path / "with.tar", pictures, [0, 1, 0, 1, 0, 1])
        made = index_shards(tmp_path / name, tmp_path / f"{name}.index", labelled=False)
        assert (made.num_images, made.classes) == (6, [])


def test_an_interrupted_index_goes_on_with_the_next_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_shards(tmp_path / "shards", 60)
    index_shards(source, tmp_path / "whole", resolution=8)

    def killed(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_shards(source, tmp_path / "index", resolution=8, progress=killed)
    for name, torn in (("shards.jsonl", b'{"name": "000'), ("places.npy", bytes(5))):
        with (tmp_path / ".index.partial" / name).open("ab") as file:
            file.write(torn)
    opened: list[str] = []
    real = indexing.open_shard
    monkeypatch.setattr(
        indexing, "open_shard", lambda file: (opened.append(file.name), real(file))[1]
    )
    index_shards(source, tmp_path / "index", resolution=8)
    assert opened == ["00040.tar"]
    for name in ("dataset.json", "labels.npy", "places.npy", "shards.jsonl"):
        assert (tmp_path / "index" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / ".index.partial").exists()


def test_shards_are_indexed_where_they_are_opened_and_again_when_they_change(
    tmp_path: Path, downloads: Path
) -> None:
    source = make_shards(tmp_path / "shards", 30)
    told: list[int] = []
    first = open_dataset(source, resolution=10, progress=lambda done, _: told.append(done))
    again = open_dataset(source, resolution=10, progress=lambda done, _: told.append(done))
    assert told == [1, 2]
    assert first.sha256 == again.sha256
    os.utime(source / "00000.tar", (0, 0))  # as a copy of the folder would have it
    assert open_dataset(source, resolution=10).sha256 == first.sha256
    write_tar(source / "00000.tar", [png(np.zeros((9, 9, 3), np.uint8))], [0])
    changed = open_dataset(source, resolution=10)
    assert len(changed) == 11
    assert changed.sha256 != first.sha256


def test_training_from_shards_tells_what_prepare_would(tmp_path: Path, downloads: Path) -> None:
    source = make_shards(tmp_path / "shards", 10)
    write_tar(source / "1.tar", [png(np.zeros((32, 32), np.uint8)), b"nothing"], [0, 1])
    asked = ["--set", f"data.path={source}", "--set", "data.resolution=16x32", "--dry-run"]
    for _ in range(2):  # the second time of the index
        said = CliRunner().invoke(app, ["train", "dcgan-digits", *asked]).output
        assert "skipped 1.tar/00001.png: not an image" in said
        assert (
            "pictures that were too small and are enlarged: 10, 00000.tar/00000.png first" in said
        )
        assert "everything is in order" in said


def test_a_shard_that_changed_is_told(tmp_path: Path) -> None:
    source = make_shards(tmp_path / "shards", 40)
    index_shards(source, tmp_path / "index", resolution=8)
    dataset = Dataset(tmp_path / "index")
    batches = StreamedBatches(dataset, 10, seed=0, device=CPU)
    batches.next()
    os.utime(source / "00020.tar", (0, 0))
    with pytest.raises(DataError, match=r"00020.tar: not there, or changed since .*index"):
        dataset.images[25]
    with pytest.raises(DataError, match=r"00020.tar: not there, or changed"):
        Dataset(tmp_path / "index")


def streamed(tmp_path: Path, count: int = 200) -> Dataset:
    index_shards(make_shards(tmp_path / "shards", count), tmp_path / "index", resolution=8)
    return Dataset(tmp_path / "index")


def shown(windows: Windows, positions: range) -> list[tuple[int, bool]]:
    found = []
    for position in positions:
        number, place = windows.find(position)
        window = windows.window(number)
        found.append((int(window.rows[place]), bool(window.flipped[place])))
    return found


def test_every_epoch_shows_every_image_once_in_another_order(
    tmp_path: Path, small_blocks: None
) -> None:
    images = streamed(tmp_path).images
    windows = Windows(images, seed=1, window_mb=0.01)
    assert 6 < windows._each < 15
    epochs = [[row for row, _ in shown(windows, range(n * 200, n * 200 + 200))] for n in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(200))
    assert epochs[0] != epochs[1]
    # A window takes its blocks from anywhere, and shuffles them together.
    first = windows.window(0)
    runs = np.abs(np.diff(first.rows)) == 1
    assert len(first.rows) < 50
    assert np.ptp(first.rows) > 50
    assert runs.mean() < 0.3
    assert 0.3 < np.mean([flipped for _, flipped in shown(windows, range(200))]) < 0.7


def test_what_a_position_shows_depends_on_the_seed_and_itself_alone(
    tmp_path: Path, small_blocks: None
) -> None:
    images = streamed(tmp_path).images
    whole = shown(Windows(images, seed=1, window_mb=0.02), range(500))
    assert shown(Windows(images, seed=1, window_mb=0.02), range(307, 333)) == whole[307:333]
    assert shown(Windows(images, seed=2, window_mb=0.02), range(500)) != whole


@pytest.mark.parametrize("window_mb", [0.001, 0.02, 10.0])
def test_batches_are_in_the_order_of_the_windows(
    tmp_path: Path, small_blocks: None, window_mb: float
) -> None:
    """Windows smaller than a batch, of some batches, and one for all; across epochs."""
    dataset = streamed(tmp_path)
    copied = np.array(dataset.images[:])
    order = shown(Windows(dataset.images, seed=3, window_mb=window_mb), range(490))
    batches = StreamedBatches(dataset, 35, seed=3, device=CPU, mirror=True, window_mb=window_mb)
    for start in range(0, 490, 35):
        assert batches.position == start
        images, labels = batches.next()
        rows, flipped = zip(*order[start : start + 35], strict=True)
        expected = torch.from_numpy(copied[list(rows)]).permute(0, 3, 1, 2).float() / 127.5 - 1
        expected[list(flipped)] = expected[list(flipped)].flip(3)
        assert torch.equal(images, expected)
        assert labels.tolist() == [row % 3 for row in rows]
    batches.position = 70  # as a checkpoint sets it
    assert batches.next()[1].tolist() == [row % 3 for row, _ in order[70:105]]
