"""Line charts: no script, readable in light and dark, alone or inside a page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gantrain.report.shapes import Dot, Drawing, Line, Point, Shape, Text

WIDTH, HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 24, 38, 44
_MOST_POINTS = 300  # of a line; more are averaged
_FEW_POINTS = 12  # which are marked: a line through three hides that they are three
_LETTER = 9.0  # points that a letter of a legend takes on a phone

# On a phone a chart is two thirds as wide as it is drawn, so that letters are drawn larger.
STYLE = """
.gan-chart { font-family: system-ui, sans-serif; }
@media (max-width: 480px) { .gan-chart text { font-size: 16px; }
  .gan-chart .small { font-size: 15px; } }
@media (prefers-color-scheme: dark) { .gan-chart text { fill: #e6e9ee; }
  .gan-chart .grid { stroke: #3a414b; } .gan-chart .rule { stroke: #e6e9ee; }
  .gan-chart .line.c0 { stroke: #6cb2ff; } .gan-chart .line.c1 { stroke: #ff9a5c; }
  .gan-chart .line.c2 { stroke: #66d18a; } .gan-chart .line.c3 { stroke: #c79bff; }
  .gan-chart .dot.c0, .gan-chart text.c0 { fill: #6cb2ff; }
  .gan-chart .dot.c1, .gan-chart text.c1 { fill: #ff9a5c; }
  .gan-chart .dot.c2, .gan-chart text.c2 { fill: #66d18a; }
  .gan-chart .dot.c3, .gan-chart text.c3 { fill: #c79bff; } }
"""


@dataclass(frozen=True)
class Axis:
    """A range and the places of its ticks."""

    low: float
    high: float
    ticks: list[float]

    @classmethod
    def around(cls, values: Sequence[float]) -> "Axis":
        """A range of round numbers that holds all values."""
        low, high = min(values), max(values)
        if high - low < 1e-12 * max(1.0, abs(high)):
            low, high = low - 0.5, high + 0.5
        rough = (high - low) / 4
        power = 10 ** math.floor(math.log10(rough))
        step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        ticks = [n * step for n in range(first, last + 1)]
        return cls(ticks[0], ticks[-1], ticks)

    @classmethod
    def between(cls, low: float, high: float) -> "Axis":
        """A range that ends where it is told to, with the round numbers inside of it."""
        ticks = cls.around([low, high]).ticks
        if low == high:
            return cls(ticks[0], ticks[-1], ticks)
        reach = 1e-9 * (high - low)
        return cls(low, high, [t for t in ticks if low - reach <= t <= high + reach])

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value lies between two ends of the picture."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def line_chart(
    title: str,
    lines: Mapping[str, Sequence[Point]],
    *,
    x_label: str,
    rule: tuple[str, float] | None = None,
    y_label: str = "",
    point_labels: Sequence[str] = (),
) -> str:
    """A chart of some lines, as an SVG element; see `line_drawing`.

    Returns:
        SVG, with its style.
    """
    drawing = line_drawing(
        title, lines, x_label=x_label, rule=rule, y_label=y_label, point_labels=point_labels
    )
    return drawing.svg(STYLE)


def line_drawing(
    title: str,
    lines: Mapping[str, Sequence[Point]],
    *,
    x_label: str,
    x_range: tuple[float, float] | None = None,
    rule: tuple[str, float] | None = None,
    y_label: str = "",
    point_labels: Sequence[str] = (),
) -> Drawing:
    """A chart of some lines.

    Args:
        title: above it.
        lines: name -> points (x, y); what is not finite is left out.
        x_label, y_label: of the axes, with their units.
        x_range: where the x axis begins and ends; by default with the points.
        rule: name and height of a dashed level line.
        point_labels: one a point, if the points are to be marked.
    """
    panel = _panel(title, lines, x_label, y_label, x_range, rule, point_labels, offset=0)
    return Drawing(title, WIDTH, HEIGHT, panel)


def quality_diversity(by_truncation: Mapping[float, Mapping[str, float]], features: str) -> Drawing:
    """What truncation trades: FID against IS and precision against recall, those that there are.

    Args:
        by_truncation: truncation -> scores by name.
        features: of what the scores are, as in "classifier".
    """
    axes = [("inception_score", "fid"), ("recall", "precision")]
    labels = [f"{truncation:g}" for truncation in by_truncation]
    panels: list[Shape] = []
    height = 0
    for x, y in axes:
        if not all(x in scores and y in scores for scores in by_truncation.values()):
            continue
        points = [(scores[x], scores[y]) for scores in by_truncation.values()]
        (x_name, x_label), (y_name, y_label) = _readable(x, features), _readable(y, features)
        title = f"{y_name} against {x_name}, by truncation"
        panels += _panel(title, {"": points}, x_label, y_label, None, None, labels, offset=height)
        height += HEIGHT
    return Drawing("quality and diversity, by truncation", WIDTH, height or HEIGHT, panels)


def _readable(name: str, features: str) -> tuple[str, str]:
    """What a score is called in a title and, with its unit, beside an axis."""
    if name == "inception_score":
        return f"{features} score", f"{features} score (classes)"
    if name == "fid":
        return f"{features}-FID", f"{features}-FID"
    return name, f"{name} (from 0 to 1)"


def _panel(
    title: str,
    lines: Mapping[str, Sequence[Point]],
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None,
    rule: tuple[str, float] | None,
    point_labels: Sequence[str],
    *,
    offset: int,
) -> list[Shape]:
    """One chart; the caller's picture begins at height `offset`."""
    kept = {name: _thinned(points) for name, points in lines.items()}
    kept = {name: points for name, points in kept.items() if points}
    shapes: list[Shape] = [Text(10, offset + 18, title, kind="title")]
    if not kept:
        return [*shapes, Text(WIDTH / 2, offset + HEIGHT / 2, "no figures", "middle")]
    across = [x for points in kept.values() for x, _ in points]
    heights = [y for points in kept.values() for _, y in points]
    if point_labels:  # which need room around them
        x_axis = Axis.around(across)
    else:
        x_axis = Axis.between(*(x_range or (min(across), max(across))))
    y_axis = Axis.around([*heights, *([rule[1]] if rule else [])])
    left, right = _LEFT, WIDTH - _RIGHT
    bottom, top = offset + HEIGHT - _BOTTOM, offset + _TOP
    for tick in y_axis.ticks:
        y = y_axis.place(tick, bottom, top)
        shapes.append(Line([(left, y), (right, y)], "grid"))
        shapes.append(Text(left - 6, y + 4, f"{tick:.4g}", "end"))
    for tick in x_axis.ticks:
        shapes.append(Text(x_axis.place(tick, left, right), bottom + 17, f"{tick:.6g}", "middle"))
    shapes.append(Text((left + right) / 2, bottom + 36, x_label, "middle"))
    if y_label:
        shapes.append(Text(16, (top + bottom) / 2, y_label, "middle", upwards=True))
    if rule:
        y = y_axis.place(rule[1], bottom, top)
        shapes.append(Line([(left, y), (right, y)], "rule"))
        shapes.append(Text(right, y - 4, rule[0], "end", "small"))
    legend = float(right)
    for number, (name, points) in reversed(list(enumerate(kept.items()))):
        colour = number % 4
        places = [(x_axis.place(x, left, right), y_axis.place(y, bottom, top)) for x, y in points]
        shapes.append(Line(places, colour=colour))
        if len(places) <= _FEW_POINTS or point_labels:
            shapes += [Dot(x, y, colour) for x, y in places]
        shapes += _beside(places, point_labels)
        if name and len(kept) > 1:
            shapes.append(Text(legend, top - 6, name, "end", "small", colour))
            legend -= 12 + _LETTER * len(name)
    return shapes


def _beside(places: Sequence[Point], labels: Sequence[str]) -> list[Shape]:
    """The labels of a line's points, on the side of each that the line leaves free."""
    (first_x, first_y), (last_x, last_y) = places[0], places[-1]
    rises = (last_x - first_x) * (last_y - first_y) < 0  # y grows downwards
    return [
        Text(x - 5, y - 5, label, "end", "small")
        if rises
        else Text(x + 5, y - 5, label, kind="small")
        for (x, y), label in zip(places, labels, strict=False)
    ]


def _thinned(points: Sequence[Point]) -> list[Point]:
    """The finite points; if there are very many, means of neighbours."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    group = math.ceil(len(finite) / _MOST_POINTS)
    if group <= 1:
        return finite
    parts = [finite[i : i + group] for i in range(0, len(finite), group)]
    return [
        (sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts
    ]
