"""What a path of data may be."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganinfer.errors import DataError
from gantrain.data.opening import open_dataset, prepared_copy
from gantrain.data.prepare import prepare


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(3):
            pixels = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{n}.png")
    return tmp_path / "photos"


def test_pictures_are_prepared_once_whatever_holds_them(photos: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(photos), "zip", photos)
    expected = prepare(str(photos), tmp_path / "data", resolution=8)
    for place in (photos, photos.with_suffix(".zip")):
        dataset = open_dataset(place, source="digits", resolution=8)  # which is not needed
        assert dataset.path == place
        assert dataset.classes == ["cat", "dog"]
        assert dataset.sha256 == open_dataset(expected.path).sha256
        open_dataset(place, resolution=8, progress=_again)


def _again(_done: int, _total: int) -> None:
    raise AssertionError("they are prepared again")


def test_the_copy_follows_the_pictures_and_not_their_place(photos: Path, tmp_path: Path) -> None:
    first = prepared_copy(photos, 8)
    moved = Path(shutil.copytree(photos, tmp_path / "elsewhere"))
    (moved / "cat" / ".DS_Store").touch()
    assert prepared_copy(moved, 8) == first
    assert prepared_copy(moved, 16) != first
    os.utime(moved / "cat" / "0.png", (1, 1))
    archives = [tmp_path / "a.zip", tmp_path / "b.zip"]
    for size, archive in enumerate(archives):
        archive.write_bytes(b"x" * size)
    assert len({prepared_copy(archive, 8) for archive in archives}) == 2
    assert prepared_copy(moved, 8) != first


def test_what_pictures_need_is_said_as_a_recipe_says_it(photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(photos / "cat" / "odd.png")
    with pytest.raises(DataError, match="odd.png.*--set data.resolution=N"):
        open_dataset(photos)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: no prepared dataset.*no image files in it"):
        open_dataset(tmp_path / "empty")
