"""How large images are: height first, then width, as in the shape of an array, everywhere.

A resolution is the side of square images, or (height, width); as text 64, or 128x256.
"""

Size = tuple[int, int]  # height, width
Resolution = int | Size

LEAST, MOST = 4, 4096  # pixels


def read_resolution(text: int | str) -> Resolution:
    """64 -> 64; "128x256" -> (128, 256).

    Raises:
        ValueError: it is written otherwise, or no image has that size.
    """
    sides = str(text).lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ValueError("expected 64, or height x width as in 128x256")
    height, width = int(sides[0]), int(sides[-1])
    if not LEAST <= height <= MOST or not LEAST <= width <= MOST:
        raise ValueError(f"expected {LEAST} to {MOST} pixels")
    return resolution_of((height, width))


def size_of(resolution: Resolution) -> Size:
    """Height and width."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def resolution_of(size: Size) -> Resolution:
    """One number, if they are alike."""
    height, width = size
    return height if height == width else (height, width)


def in_words(resolution: Resolution) -> str:
    """As people write it: 64x64, 128x256."""
    return "{}x{}".format(*size_of(resolution))
