"""What pages have in common: their style, and the filters of their templates."""

import base64
from importlib.resources import files

import jinja2

from gantrain.metrics._score import Better

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


def _figure(value: float, digits: int) -> str:
    """With so many digits that count: 0.07123, 12.3, 357,100."""
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
