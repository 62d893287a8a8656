import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganinfer import Sampler
from ganinfer.errors import MissingExtra, RequestError
from ganinfer.film import save_film, walk


@pytest.fixture(scope="module")
def sampler(bundle: Path):
    with Sampler(bundle) as opened:
        yield opened


def frames(count: int = 5, width: int = 16) -> np.ndarray:
    """uint8 (N, H, W, 3), a square that moves."""
    film = np.full((count, 16, width, 3), 40, np.uint8)
    for number, frame in enumerate(film):
        frame[4:8, number : number + 4] = (250, 200, 30)
    return film


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a.astype(int) - b).max() <= 1)


def test_a_walk_meets_every_seed(sampler: Sampler) -> None:
    film = np.stack(list(walk(sampler, [4, 9, 2], 5, labels=1, truncation=0.8)))
    assert film.shape == (11, 16, 16, 3)
    assert close(film[[0, 5, 10]], sampler.sample(seeds=[4, 9, 2], labels=1, truncation=0.8))


def test_a_loop_ends_before_it_begins_again(sampler: Sampler) -> None:
    film = np.stack(list(walk(sampler, [4, 9], 5, loop=True, labels=1)))
    assert len(film) == 10
    back = sampler.interpolate(9, 4, 6, label=1)
    assert close(film[5:], back[:-1])


def test_steps_have_classes_in_turn(sampler: Sampler) -> None:
    film = np.stack(list(walk(sampler, [4, 9, 2], 1, loop=True, labels=["2", 0])))
    assert close(film, sampler.sample(seeds=[4, 9, 2], labels=[2, 0, 2]))


def test_the_first_seed_gives_its_class_to_all(sampler: Sampler) -> None:
    film = np.stack(list(walk(sampler, [4, 9], 3)))
    assert close(film, sampler.interpolate(4, 9, 4))


@pytest.mark.parametrize(("seeds", "count"), [([1], 5), ([], 5), ([1, 2], 0)])
def test_a_walk_needs_two_ends(sampler: Sampler, seeds: list[int], count: int) -> None:
    with pytest.raises(RequestError, match="expected 2 seeds or more"):
        next(walk(sampler, seeds, count))


def test_a_class_is_one_that_there_is(sampler: Sampler) -> None:
    for labels, words in (([], "labels: found none"), ("dog", "label 'dog'")):
        with pytest.raises(RequestError, match=words):
            next(walk(sampler, [1, 2], 5, labels=labels))


def test_a_webp_keeps_every_pixel_and_plays_for_ever(tmp_path: Path) -> None:
    film = frames()
    save_film(tmp_path / "x.webp", film, fps=20)
    with Image.open(tmp_path / "x.webp") as picture:
        assert (picture.n_frames, picture.size, picture.info["loop"]) == (5, (256, 256), 0)
        for number, frame in enumerate(film):
            picture.seek(number)
            assert np.array_equal(np.asarray(picture.convert("RGB"))[8::16, 8::16], frame)
            picture.load()
            assert picture.info["duration"] == 50


def test_a_gif_of_few_colours_keeps_them(tmp_path: Path) -> None:
    film = frames()
    save_film(tmp_path / "x.gif", film, fps=25)
    with Image.open(tmp_path / "x.gif") as picture:
        assert (picture.n_frames, picture.info["loop"], picture.info["duration"]) == (5, 0, 40)
        picture.seek(3)
        assert np.array_equal(np.asarray(picture.convert("RGB"))[8::16, 8::16], film[3])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_mp4_plays_the_frames(tmp_path: Path, channels: int) -> None:
    av = pytest.importorskip("av")
    film = frames(width=257)[..., :channels]  # H.264 takes even sides alone
    save_film(tmp_path / "x.mp4", film, fps=30)
    with av.open(tmp_path / "x.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 30)
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(shown) == 5
    assert shown[0].shape == (16, 258, 3)
    assert np.abs(shown[2][:, :257, 0].astype(int) - film[2, :, :, 0]).mean() < 5


def test_an_mp4_without_pyav_names_its_pip_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"pip install 'ganpipe\[video\]'"):
        save_film(tmp_path / "x.mp4", frames())
    assert not list(tmp_path.iterdir())


def test_a_png_is_a_strip(tmp_path: Path) -> None:
    save_film(tmp_path / "x.png", frames())
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.size == (5 * 50 + 2, 52)


@pytest.mark.parametrize(("name", "fps"), [("x.avi", 30), ("x", 30), ("x.gif", 0), ("x.gif", 101)])
def test_other_films_are_refused(tmp_path: Path, name: str, fps: int) -> None:
    with pytest.raises(RequestError, match="expected"):
        save_film(tmp_path / name, frames(), fps=fps)
    assert not list(tmp_path.iterdir())
