"""What charts and figures are made of, and the SVG of it; sizes in points, y grows downwards."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from ganinfer.drawing.images import Images, encode_png

INK, FAINT = "#1b1f24", "#d5dae0"
COLOURS = ("#0b62c4", "#c2410c", "#15803d", "#7e22ce")  # of lines, in their order
FONT = "Helvetica, Arial, sans-serif"

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Points, joined. kind: what it is for; colour: of a "line", its number."""

    points: Sequence[Point]
    kind: Literal["grid", "rule", "line"] = "line"
    colour: int = 0

    @property
    def stroke(self) -> str:
        """Its colour, as #rrggbb."""
        return {"grid": FAINT, "rule": INK}.get(self.kind, COLOURS[self.colour])

    @property
    def width(self) -> float:
        """How thick it is."""
        return {"grid": 1.0, "rule": 1.2}.get(self.kind, 1.8)


@dataclass(frozen=True)
class Dot:
    """A point that is marked."""

    x: float
    y: float
    colour: int = 0


@dataclass(frozen=True)
class Text:
    """Words. anchor: what of them lies at x; upwards: they are read from below."""

    x: float
    y: float
    words: str
    anchor: Literal["start", "middle", "end"] = "start"
    kind: Literal["title", "plain", "small"] = "plain"
    colour: int | None = None
    upwards: bool = False

    @property
    def size(self) -> float:
        """Of the font."""
        return 10.5 if self.kind == "small" else 12.0

    @property
    def fill(self) -> str:
        """Its colour, as #rrggbb."""
        return INK if self.colour is None else COLOURS[self.colour]


@dataclass(frozen=True)
class Bitmap:
    """An image uint8 (H, W, C) in a box, its pixels sharp."""

    x: float
    y: float
    width: float
    height: float
    pixels: Images


Shape = Line | Dot | Text | Bitmap


@dataclass(frozen=True)
class Drawing:
    """Shapes on a page, and what it shows, in words."""

    title: str
    width: float
    height: float
    shapes: Sequence[Shape]

    def svg(self, style: str = "") -> str:
        """An SVG element in light colours; a style sheet may change them by classes."""
        content = "".join(map(_element, self.shapes))
        sheet = f"<style>{style}</style>" if style else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}"'
            f' class="gan-chart" font-family="{FONT}" role="img" aria-label="{escape(self.title)}">'
            f"{sheet}{content}</svg>"
        )


def _element(shape: Shape) -> str:
    match shape:
        case Line():
            return _line(shape)
        case Dot():
            colour = COLOURS[shape.colour]
            at = f'cx="{shape.x:.1f}" cy="{shape.y:.1f}" r="3"'
            return f'<circle class="dot c{shape.colour}" {at} fill="{colour}"/>'
        case Text():
            return _text(shape)
        case Bitmap():
            png = base64.b64encode(encode_png(shape.pixels)).decode()
            box = f'x="{shape.x:.1f}" y="{shape.y:.1f}"'
            size = f'width="{shape.width:.1f}" height="{shape.height:.1f}"'
            return (
                f'<image {box} {size} preserveAspectRatio="none" style="image-rendering: pixelated"'
                f' href="data:image/png;base64,{png}"/>'
            )


def _line(line: Line) -> str:
    pen = f'stroke="{line.stroke}" stroke-width="{line.width:g}"'
    if line.kind == "line":
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line.points)
        return (
            f'<polyline class="line c{line.colour}" fill="none" stroke-linejoin="round" {pen}'
            f' points="{path}"/>'
        )
    (x1, y1), (x2, y2) = line.points
    dashes = ' stroke-dasharray="5 4"' if line.kind == "rule" else ""
    ends = f'x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"'
    return f'<line class="{line.kind}" {ends} {pen}{dashes}/>'


def _text(text: Text) -> str:
    place = f'x="{text.x:.1f}" y="{text.y:.1f}"'
    if text.upwards:
        place = f'transform="translate({text.x:.1f} {text.y:.1f}) rotate(-90)"'
    colour = "" if text.colour is None else f" c{text.colour}"
    weight = ' font-weight="600"' if text.kind == "title" else ""
    return (
        f'<text class="{text.kind}{colour}" {place} text-anchor="{text.anchor}"'
        f' font-size="{text.size:g}" fill="{text.fill}"{weight}>{escape(text.words)}</text>'
    )
