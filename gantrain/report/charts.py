"""Line charts as SVG: no script, readable in light and dark, alone or inside a page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 480, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 24, 30, 42
_MOST_POINTS = 300  # of a line; more are averaged
_STYLE = """
.gan-chart { font: 12px system-ui, sans-serif; --ink: #1b1f24; --faint: #d5dae0;
  --c0: #0b62c4; --c1: #c2410c; --c2: #15803d; --c3: #7e22ce; }
.gan-chart text { fill: var(--ink); }
.gan-chart .title { font-weight: 600; }
.gan-chart .grid { stroke: var(--faint); stroke-width: 1; }
.gan-chart .rule { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 5 4; opacity: .7; }
.gan-chart .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.gan-chart .small { font-size: 10.5px; }
@media (prefers-color-scheme: dark) { .gan-chart { --ink: #e6e9ee; --faint: #3a414b;
  --c0: #6cb2ff; --c1: #ff9a5c; --c2: #66d18a; --c3: #c79bff; } }
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
    """A chart of some lines, as an SVG element.

    Args:
        title: above it.
        lines: name -> points (x, y); what is not finite is left out.
        x_label, y_label: of the axes.
        rule: name and height of a dashed level line.
        point_labels: one a point, if the points are to be marked.

    Returns:
        SVG, with its style.
    """
    return _svg(title, HEIGHT, _panel(title, lines, x_label, y_label, rule, point_labels, offset=0))


def quality_diversity(by_truncation: Mapping[float, Mapping[str, float]]) -> str:
    """What truncation trades: FID against IS and precision against recall, those that there are.

    Args:
        by_truncation: truncation -> scores by name.

    Returns:
        SVG, with its style.
    """
    axes = [("inception_score", "fid"), ("recall", "precision")]
    panels: list[str] = []
    labels = [f"{truncation:g}" for truncation in by_truncation]
    for x, y in axes:
        if all(x in scores and y in scores for scores in by_truncation.values()):
            points = [(scores[x], scores[y]) for scores in by_truncation.values()]
            title = f"{_readable(y)} against {_readable(x)}, by truncation"
            panels.append(
                _panel(
                    title,
                    {"": points},
                    _readable(x),
                    _readable(y),
                    None,
                    labels,
                    offset=HEIGHT * len(panels),
                )
            )
    return _svg("quality and diversity", HEIGHT * max(1, len(panels)), "".join(panels))


def _readable(name: str) -> str:
    return {"fid": "FID", "inception_score": "Inception score"}.get(name, name.replace("_", " "))


def _svg(title: str, height: int, content: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" class="gan-chart"'
        f' role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>{content}</svg>'
    )


def _panel(
    title: str,
    lines: Mapping[str, Sequence[Point]],
    x_label: str,
    y_label: str,
    rule: tuple[str, float] | None,
    point_labels: Sequence[str],
    *,
    offset: int,
) -> str:
    """One chart; the caller's picture begins at height `offset`."""
    kept = {name: _thinned(points) for name, points in lines.items()}
    kept = {name: points for name, points in kept.items() if points}
    parts = [_text(_LEFT, offset + 18, title, kind="title")]
    if not kept:
        parts.append(_text(WIDTH / 2, offset + HEIGHT / 2, "no figures", anchor="middle"))
        return "".join(parts)
    heights = [y for points in kept.values() for _, y in points]
    x_axis = Axis.around([x for points in kept.values() for x, _ in points])
    y_axis = Axis.around([*heights, *([rule[1]] if rule else [])])
    left, right = _LEFT, WIDTH - _RIGHT
    bottom, top = offset + HEIGHT - _BOTTOM, offset + _TOP
    for tick in y_axis.ticks:
        y = y_axis.place(tick, bottom, top)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 6, y + 4, f"{tick:.4g}", anchor="end"))
    for tick in x_axis.ticks:
        x = x_axis.place(tick, left, right)
        parts.append(_text(x, bottom + 16, f"{tick:.6g}", anchor="middle"))
    parts.append(_text((left + right) / 2, bottom + 33, x_label, anchor="middle"))
    if y_label:
        middle = (top + bottom) / 2
        parts.append(
            f'<text transform="translate(13 {middle:.1f}) rotate(-90)" text-anchor="middle">'
            f"{escape(y_label)}</text>"
        )
    if rule:
        y = y_axis.place(rule[1], bottom, top)
        parts.append(f'<line class="rule" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(right, y - 4, rule[0], anchor="end", kind="small"))
    legend = float(right)
    for number, (name, points) in reversed(list(enumerate(kept.items()))):
        colour = f"var(--c{number % 4})"
        places = [(x_axis.place(x, left, right), y_axis.place(y, bottom, top)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        for (x, y), label in zip(places, point_labels, strict=False):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
            parts.append(_text(x + 5, y - 5, label, kind="small"))
        if name and len(kept) > 1:
            parts.append(
                f'<text class="small" x="{legend}" y="{top - 4}" text-anchor="end"'
                f' style="fill: {colour}">{escape(name)}</text>'
            )
            legend -= 8 + 6.2 * len(name)
    return "".join(parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'
    )


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
