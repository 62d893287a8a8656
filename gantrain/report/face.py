"""What pages have in common: their style, and the filters of their templates."""

import base64
from collections.abc import Callable
from html import escape
from importlib.resources import files

import jinja2

from gantrain.metrics._score import Better

BAR_WIDTH, BAR_HEIGHT, BAR_MARGIN = 180, 16, 5  # what is drawn keeps the margin to both sides

STYLE = (files("gantrain.report") / "style.css").read_text()


def environment() -> jinja2.Environment:
    """Templates in which text is escaped, with the filters `data_uri` and `figure`."""
    made = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"data_uri": _data_uri, "figure": _figure}
    return made


def arrow(better: Better) -> str:
    """Which values are better, beside a score's name."""
    if better is None or isinstance(better, float):
        return "" if better is None else f"\u2192 {better:g}"
    return "\u2193" if better == "lower" else "\u2191"


def bar(
    value: float,
    low: float | None,
    high: float | None,
    place: Callable[[float], float],
    *,
    label: str,
    behind: str = "",
) -> str:
    """A value with its interval, as SVG; a line stands in the middle.

    Args:
        value: that is drawn. low, high: of its interval, if it has one.
        place: of a value, from the left, in [0, BAR_WIDTH].
        label: in words, for those who do not see it.
        behind: SVG that is drawn below the line.
    """
    middle, y = BAR_WIDTH / 2, BAR_HEIGHT / 2
    parts = [
        f'<rect class="track" width="{BAR_WIDTH}" height="{BAR_HEIGHT}" rx="3"/>',
        behind,
        f'<line class="limit" x1="{middle}" x2="{middle}" y1="0" y2="{BAR_HEIGHT}"/>',
    ]
    if low is not None and high is not None:
        ends = f'x1="{place(low):.1f}" x2="{place(high):.1f}"'
        parts.append(f'<line class="interval" {ends} y1="{y}" y2="{y}"/>')
    parts.append(f'<circle class="value" cx="{place(value):.1f}" cy="{y}" r="3.5"/>')
    return (
        f'<svg class="bar" viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" role="img"'
        f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _figure(value: float, digits: int) -> str:
    """With so many digits that count: 0.07123, 12.3, 357,100."""
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
