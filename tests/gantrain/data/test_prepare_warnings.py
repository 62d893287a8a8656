"""What a set is made into beside its pixels: what is told, what is left out, another shape."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from ganexport.cli.gan import app
from ganinfer.errors import ConfigError, DataError
from gantrain.data.dataset import Dataset
from gantrain.data.prepare import prepare

RNG = np.random.default_rng(0)


def save(path: Path, *, size: tuple[int, int] = (8, 8), value: int | None = None) -> None:
    width, height = size
    pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if value is None else np.full_like(pixels, value)).save(path)


def test_a_class_without_a_readable_image_is_told_and_is_none(tmp_path: Path) -> None:
    for name in ("2/a.png", "10/a.png", "b/a.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in/9").mkdir()
    (tmp_path / "in/9/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    made = prepare(str(tmp_path / "in"), tmp_path / "data")
    assert made.classes == ["2", "10", "b"]
    assert np.load(tmp_path / "data/labels.npy").tolist() == [0, 1, 2]
    assert made.warnings == ["no classes, as no image of them can be read: 9"]
    assert made.skipped.keys() == {"9/broken.png"}


def test_a_set_that_uses_little_of_its_range_is_warned_of(tmp_path: Path) -> None:
    for value in (0, 15):
        save(tmp_path / "dark" / f"{value}.png", value=value)
    (warning,) = prepare(str(tmp_path / "dark"), tmp_path / "data").warnings
    assert "between 0 and 15 of 0 to 255" in warning
    save(tmp_path / "dark" / "light.png", value=200)
    assert prepare(str(tmp_path / "dark"), tmp_path / "data").warnings == []


def test_notes_are_counted_with_an_example_and_outlive_a_kill(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("gantrain.data.decoding._IMAGES_A_STEP", 2)
    for n in range(4):
        save(tmp_path / "in" / f"{n}.png", size=(8, 8) if n else (16, 16))

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(str(tmp_path / "in"), tmp_path / "data", resolution=16, progress=stop)
    made = prepare(str(tmp_path / "in"), tmp_path / "data", resolution=16)
    assert made.warnings == ["pictures that were too small and are enlarged: 3, 1.png first"]
    assert json.loads((tmp_path / "data/dataset.json").read_text())["warnings"] == made.warnings


def test_a_set_need_not_be_square(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", size=(20, 10))
    assert prepare(str(tmp_path / "in"), tmp_path / "data").height == 10
    made = prepare(str(tmp_path / "in"), tmp_path / "wide", resolution=(8, 16))
    assert (made.height, made.width) == (8, 16)
    dataset = Dataset(tmp_path / "wide")
    assert dataset.images.shape == (1, 8, 16, 3)
    assert dataset.resolution == (8, 16)
    save(tmp_path / "in/b.png", size=(10, 20))
    with pytest.raises(
        DataError, match=r"b.png: 20x10 \(height x width\), and the first .* 10x20;"
    ):
        prepare(str(tmp_path / "in"), tmp_path / "data")


def test_no_image_of_the_asked_shape_leaves_nothing(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", size=(20, 10))
    with pytest.raises(DataError, match="no image is left: a.png: 10x20 .* has another shape"):
        prepare(str(tmp_path / "in"), tmp_path / "data", resolution=8, framing="none")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_command_tells_every_skip_and_doubt(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", size=(20, 10))
    (tmp_path / "in/b.png").write_bytes(b"x")
    (tmp_path / "in/notes.txt").write_bytes(b"x")
    hidden = Image.new("RGBA", (10, 20), (1, 2, 3, 0))
    hidden.save(tmp_path / "in/c.png")
    command = ["prepare", str(tmp_path / "in"), str(tmp_path / "data")]
    options = ["--resolution", "8x16", "--pad", "--background", "#00f", "--no-labels"]
    said = CliRunner().invoke(app, [*command, *options]).output
    assert "skipped b.png: not an image" in said
    assert "left out what is no picture: 1 .txt" in said
    assert "2 images 8x16x3, no classes" in said
    assert np.load(tmp_path / "data/images.npy")[1, 0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--resolution", "16x"], "expected 64, or height x width"),
        (["--pad", "--squash"], "expected one of --crop, --pad and --squash"),
        (["--pad"], "--crop, --pad and --squash go with --resolution"),
        (["--labels", "x.csv", "--no-labels"], "expected one of --labels and --no-labels"),
        (["--crop", "middle"], "centre"),
    ],
)
def test_options_that_contradict_are_refused(tmp_path: Path, options, words: str) -> None:
    found = CliRunner().invoke(app, ["prepare", "digits", str(tmp_path / "x"), *options])
    assert found.exit_code == 2
    assert words in re.sub(r"[\s│]+", " ", found.output)


def test_a_background_is_a_colour(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="background 'blu': no colour"):
        prepare("digits", tmp_path / "x", background="blu")
