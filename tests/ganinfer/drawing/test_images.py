import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ganinfer
from ganinfer.drawing.images import (
    encode_png,
    encode_pngs,
    grid,
    opaque,
    save_png,
    to_pil,
    to_uint8,
    visible,
)
from ganinfer.errors import RequestError


def test_every_level_maps_to_itself() -> None:
    levels = np.arange(256, dtype=np.float32)
    assert np.array_equal(to_uint8(levels / np.float32(127.5) - 1), levels)


@pytest.mark.parametrize(
    ("value", "expected"), [(-5, 0), (-1, 0), (0, 128), (1, 255), (7, 255), (1 / 255, 128)]
)
def test_values_are_clipped_and_rounded(value: float, expected: int) -> None:
    assert to_uint8(np.array([value], np.float32))[0] == expected


def test_rounding_is_to_the_nearest_level() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    exact = [round((Fraction(float(v)) + 1) * Fraction(255, 2)) for v in values]
    assert np.abs(to_uint8(values).astype(int) - exact).max() <= 1
    assert np.mean(to_uint8(values) != exact) < 0.01


def test_grid_places_images_in_rows() -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    sheet = grid(images, columns=3, scale=2, gap=1)
    assert sheet.shape == (2 * 9 + 1, 3 * 9 + 1, 1)
    for index in range(6):
        row, column = divmod(index, 3)
        assert (sheet[1 + 9 * row : 9 + 9 * row, 1 + 9 * column : 9 + 9 * column] == index).all()
    assert (sheet[0] == 255).all()


@pytest.mark.parametrize(
    ("height", "width", "columns", "scale"), [(16, 32, 2, 2), (32, 16, 4, 2), (7, 64, 1, 1)]
)
def test_a_grid_of_oblong_images_is_about_square(
    height: int, width: int, columns: int, scale: int
) -> None:
    sheet = grid(np.zeros((8, height, width, 3), np.uint8))
    rows = -(-8 // columns)
    expected = (rows * (height * scale + 2) + 2, columns * (width * scale + 2) + 2, 3)
    assert sheet.shape == expected


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_every_pixel(channels: int, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    save_png(tmp_path / "x.png", image)
    with Image.open(tmp_path / "x.png") as decoded:
        assert np.array_equal(np.asarray(decoded).reshape(image.shape), image)
    assert Image.open(io.BytesIO(encode_png(image))).format == "PNG"


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 7), (64, 48)])
def test_pngs_of_many_images_keep_every_pixel(height: int, width: int, channels: int) -> None:
    shape = (3, height, width, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    decoded = [np.asarray(Image.open(io.BytesIO(file))) for file in encode_pngs(images)]
    assert np.array_equal(np.stack(decoded).reshape(shape), images)


def test_a_png_is_made_of_whatever_holds_one_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 1), dtype=np.uint8)
    expected = ganinfer.encode_png(image)
    for same in (image[..., 0], torch.from_numpy(image), Image.fromarray(image[..., 0])):
        assert encode_png(same) == expected
    flipped = image[::-1, ::-1]
    assert encode_png(flipped) == encode_png(flipped.copy())


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((5, 7, 3), np.float32), r"image: found float32 \(5, 7, 3\); .*to_uint8 makes it"),
        (np.zeros((2, 5, 7, 3), np.uint8), r"image: found uint8 \(2, 5, 7, 3\); .*take one"),
        (np.zeros((0, 7, 3), np.uint8), r"image: found uint8 \(0, 7, 3\)"),
        (np.zeros((3, 64, 64), np.uint8), "images of 64 channels: expected grey"),
        ([[1, 2], [3, 4]], r"image: found int64 \(2, 2\)"),
        (b"\x89PNG", "image: found bytes"),
        (None, "image: found None"),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused_in_words(image, words: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=words):
        encode_png(image)
    with pytest.raises(RequestError, match=words):
        save_png(tmp_path / "x.png", image)
    assert not list(tmp_path.iterdir())


def test_two_channels_are_no_picture_but_can_be_looked_at() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 2), dtype=np.uint8)
    for write in (lambda: to_pil(images[0]), lambda: encode_pngs(images)):
        with pytest.raises(RequestError, match="2 channels: expected .* take numbers"):
            write()
    assert np.array_equal(visible(images)[..., :5, 0], images[..., 0])
    assert np.array_equal(visible(images)[..., 5:, 0], images[..., 1])
    sheet = grid(images, columns=1, scale=1, gap=0)
    assert np.array_equal(sheet, visible(images).reshape(6, 10, 1))


def test_rgba_is_laid_on_white_as_pillow_does_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    white = Image.new("RGBA", (50, 40), "white")
    expected = np.asarray(Image.alpha_composite(white, to_pil(image)))[..., :3]
    assert np.abs(opaque(image).astype(int) - expected).max() <= 1
    image[..., 3] = 255
    assert np.array_equal(opaque(image), image[..., :3])
    assert np.array_equal(opaque(np.zeros_like(image)), np.full_like(image[..., :3], 255))
