import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from gantrain.data import pictures
from gantrain.data.pictures import DIM, ENLARGED, NO_PROFILE, ONE_FRAME, Form, decode, prepared

GREEN, MAGENTA, WHITE, BLUE = (0, 200, 0), (255, 0, 255), (255, 255, 255), (0, 0, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def half_hidden() -> Image.Image:
    """A green half, and one that is magenta under alpha 0."""
    values = np.zeros((4, 4, 4), np.uint8)
    values[:, :2] = (*GREEN, 255)
    values[:, 2:] = (*MAGENTA, 0)
    return Image.fromarray(values)


def half_in_a_palette() -> Image.Image:
    image = Image.fromarray(np.array([[1, 1, 0, 0]] * 4, np.uint8), "P")
    image.putpalette([*MAGENTA, *GREEN])
    return image


@pytest.mark.parametrize(
    "data",
    [
        encoded(half_hidden()),
        encoded(half_hidden(), "WEBP", lossless=True, exact=True),
        encoded(half_hidden().convert("RGB"), transparency=MAGENTA),
        encoded(half_in_a_palette(), transparency=0),
        np.asarray(half_hidden()),
    ],
)
@pytest.mark.parametrize("background", [WHITE, BLUE])
def test_what_is_transparent_is_laid_over_the_background(data, background) -> None:
    found = decode(data, background).pixels
    assert tuple(found[0, 0].tolist()) == GREEN
    assert tuple(found[0, 3].tolist()) == background


def test_grey_stays_grey_over_grey() -> None:
    grey = Image.fromarray(np.array([[[50, 255], [50, 0]]], np.uint8), "LA")
    assert decode(encoded(grey)).pixels.tolist() == [[50, 255]]
    assert decode(encoded(grey), BLUE).pixels.tolist() == [[[50, 50, 50], list(BLUE)]]
    deep = Image.fromarray(np.array([[300, 30000]], np.uint16))
    assert decode(encoded(deep, transparency=300)).pixels.tolist() == [[255, 117]]


@pytest.mark.parametrize(
    ("values", "expected", "notes"),
    [
        (np.array([[0, 256, 65535]], np.uint16), [0, 1, 255], ()),
        (np.array([[0, 256, 4095]], np.uint16), [0, 1, 15], (DIM,)),
        (np.array([[0, 256, 65535]], np.int32), [0, 1, 255], ()),
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255], ()),
        (np.array([[0, 0.1]], np.float32), [0, 26], (DIM,)),
    ],
)
def test_many_bits_are_scaled_by_the_stated_rule(values, expected, notes) -> None:
    found = decode(encoded(Image.fromarray(values), "TIFF"))
    assert (found.pixels[0].tolist(), found.notes) == (expected, notes)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0, 70000]], np.int32), "int32 values 0 to 70000; expected 0 to 65535"),
        (np.array([[-1, 5]], np.int32), "int32 values -1 to 5"),
        (np.array([[0, 200]], np.float32), "float values 0 to 200; expected 0 to 1"),
        (np.array([[0, np.nan]], np.float32), "expected 0 to 1"),
    ],
)
def test_a_range_that_is_not_known_is_refused(values, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decode(encoded(Image.fromarray(values), "TIFF"))


def test_a_profile_becomes_srgb() -> None:
    # A profile whose red and blue primaries are exchanged: sRGB's, with two tags renamed.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "BGRs".encode("utf-16-be"))
    image = Image.new("RGB", (2, 2), (250, 20, 10))
    assert decode(encoded(image, icc_profile=srgb)).pixels[0, 0].tolist() == [250, 20, 10]
    found = decode(encoded(image, icc_profile=swapped))
    assert found.notes == ()
    assert np.abs(found.pixels[0, 0].astype(int) - [10, 20, 250]).max() < 8
    image.putalpha(255)
    assert np.array_equal(decode(encoded(image, icc_profile=swapped)).pixels, found.pixels)
    for useless in (
        b"no profile",
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ):
        found = decode(encoded(image, icc_profile=useless))
        assert (found.pixels[0, 0].tolist(), found.notes) == ([250, 20, 10], (NO_PROFILE,))


def test_of_several_frames_the_first_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    found = decode(data)
    assert (found.pixels[0, 0].tolist(), found.notes) == (list(GREEN), (ONE_FRAME,))


def test_the_limit_is_our_own_and_pillows_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    data = encoded(Image.new("L", (8, 8)))
    assert decode(data).pixels.shape == (8, 8)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 50)
    with pytest.raises(ValueError, match="8x8: more than 50 pixels"):
        decode(data)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_formats_that_run_other_programs_are_no_pictures() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")


def bands(width: int, height: int) -> bytes:
    """Red, green and blue along the longer side, green twice as long."""
    across = np.zeros((64, 3), np.uint8)
    across[:16], across[16:48], across[48:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    values = np.broadcast_to(across[:, None], (64, 32, 3))
    image = Image.fromarray(np.ascontiguousarray(values))
    return encoded(image if height > width else image.transpose(Image.Transpose.ROTATE_90))


@pytest.mark.parametrize(
    ("framing", "form", "top", "bottom"),
    [
        ("centre", (32, 32), (0, 255, 0), (0, 255, 0)),
        ("pad", (32, 32), WHITE, WHITE),
        ("squash", (32, 32), (255, 0, 0), (0, 0, 255)),
        ("centre", (32, 64), (255, 0, 0), (0, 0, 255)),
        ("none", (16, 32), (255, 0, 0), (0, 0, 255)),
    ],
)
def test_another_shape_is_met_as_was_asked(framing, form, top, bottom) -> None:
    width, height = form
    wanted = Form(width=width, height=height, channels=3, framing=framing)
    found = prepared(bands(32, 64), wanted, "a.png").pixels
    assert found.shape == (height, width, 3)
    assert tuple(found[0, 0].tolist()) == top
    assert tuple(found[-1, 0].tolist()) == bottom


def test_a_random_crop_is_the_names_own() -> None:
    form = Form(width=32, height=32, channels=3, framing="random")
    data = bands(32, 64)

    def crop(name: str) -> bytes:
        return prepared(data, form, name).pixels.tobytes()

    assert crop("1.png") == crop("1.png")
    assert len({crop(f"{n}.png") for n in range(20)}) > 5


def test_no_crop_refuses_another_shape() -> None:
    form = Form(width=32, height=32, channels=3, framing="none")
    with pytest.raises(ValueError, match="64x32 .* has another shape than 32x32"):
        prepared(bands(32, 64), form, "a.png")


def test_what_is_enlarged_is_told() -> None:
    form = Form(width=16, height=16, channels=1)
    assert prepared(encoded(Image.new("L", (8, 20))), form, "a.png").notes == (ENLARGED,)
    assert prepared(encoded(Image.new("L", (16, 20))), form, "a.png").notes == ()
