"""Figures for papers: drawings of a report as SVG and PDF, labelled, in one size and one type."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ganinfer.files import write_atomic
from gantrain.report.charts import WIDTH
from gantrain.report.pdf import pdf
from gantrain.report.pictures import Picture
from gantrain.report.shapes import Bitmap, Drawing, Shape, Text

_MARGIN, _LINE = 10.0, 17.0
_LABEL = 6.5  # points that a letter of a row's label takes


def write_figures(folder: Path, drawings: Mapping[str, Drawing]) -> list[Path]:
    """Write each drawing as name.svg and name.pdf.

    Args:
        folder: made if it is not there. drawings: name -> what is drawn.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawing in drawings.items():
        for suffix, data in ((".svg", drawing.svg().encode()), (".pdf", pdf(drawing))):
            place = folder / f"{name}{suffix}"
            write_atomic(place, data)
            written.append(place)
    return written


def picture_drawing(title: str, picture: Picture) -> Drawing:
    """A picture under its title, with the labels of its rows and columns, and its caption."""
    with Image.open(picture.file) as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    widest = max((len(label) for label in picture.rows), default=0)
    left = _MARGIN + (_LABEL * widest + 6 if widest else 0)
    top = 28 + (_LINE if picture.columns else 0)
    wide = WIDTH - left - _MARGIN
    high = wide * height / width
    shapes: list[Shape] = [
        Text(_MARGIN, 18, title, kind="title"),
        Bitmap(left, top, wide, high, pixels),
        Text(_MARGIN, top + high + _LINE, picture.caption, kind="small"),
    ]
    for n, x in _middles(picture.columns, left, wide):
        shapes.append(Text(x, top - 5, picture.columns[n], "middle", "small"))
    for n, y in _middles(picture.rows, top, high):
        shapes.append(Text(left - 6, y + 4, picture.rows[n], "end", "small"))
    return Drawing(title, WIDTH, top + high + _LINE + 8, shapes)


def _middles(labels: Sequence[str], start: float, length: float) -> list[tuple[int, float]]:
    """The number of each label, and the middle of its part of a length."""
    return [(n, start + length * (n + 0.5) / len(labels)) for n in range(len(labels))]
