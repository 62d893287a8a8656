"""Rooflines of the candidates as a picture: SVG without script, readable in light and dark.

A panel for each: above, multiply-adds a second against multiply-adds a byte, both on logarithmic
scales, a dot for each layer that multiplies, as large as its time; below, the time of every layer,
how much of it its roof explains, and what keeps the costliest from theirs.
"""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ganinfer.bench.chart import STYLE, text
from ganinfer.bench.layers_report import LayersReport
from ganinfer.bench.roofline import Anatomy, LayerTime

_WIDTH, _LEFT, _RIGHT = 600, 52, 24
_PLOT, _ROW, _GAP = 230, 22, 44
_NAMES, _FIGURES = 216, 118  # beside the bars
_MOST_BARS, _LEAST_TIME = 14, 0.005
_LEAST_MACS = 0.001  # what has less of all multiply-adds is a bar, and no dot
_TYPES = {"fp32": "c0", "int8": "c1", "bf16": "c2", "fp16": "c3"}
_OWN_STYLE = """
text { font-size: 14px; } .title { font-size: 16px; } .number { font-weight: 700; }
.axis { stroke: #1b1f24; stroke-opacity: .18; } .dot { fill-opacity: .75; } .part { opacity: .35; }
.roof { fill: none; stroke: #1b1f24; stroke-width: 2; }
.other { stroke-dasharray: 4 4; stroke-width: 1; }
@media (prefers-color-scheme: dark) { .axis, .roof { stroke: #e6e9ee; } }
"""


class _Plane:
    """Where a point of two logarithmic scales is drawn."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], top: float) -> None:
        self._xs, self._ys, self._top = _around(xs), _around(ys), top

    def x(self, value: float) -> float:
        low, high = self._xs
        return _LEFT + math.log(value / low) / math.log(high / low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self._ys
        return self._top + _PLOT - math.log(value / low) / math.log(high / low) * _PLOT

    def grid(self) -> list[str]:
        """Lines and numbers."""
        parts, bottom = [], self._top + _PLOT
        for value in _ticks(*self._xs):
            x, number = self.x(value), f"{value:g}"
            parts.append(_line(x, self._top, x, bottom))
            parts.append(text(x + 4 * len(number), bottom + 17, number, "small", end=True))
        for value in _ticks(*self._ys):
            y = self.y(value)
            parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y))
            parts.append(text(_LEFT - 6, y + 5, f"{value:g}", "small", end=True))
        return parts

    def roof(self, rate: float, gb_per_s: float, kind: str) -> str:
        """The most that can be had: what memory brings, up to what is computed."""
        start = max(self._xs[0], self._ys[0] / gb_per_s)
        ridge = max(start, rate / gb_per_s)
        points = ((start, min(rate, start * gb_per_s)), (ridge, rate), (self._xs[1], rate))
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        return f'<polyline class="roof {kind}" points="{path}"/>'


def roofline_chart(report: LayersReport) -> str:
    """A panel for each backend and precision that was measured."""
    name = Path(report.bundle).name
    host = f"{report.host.cpu}, {report.host.cpus} CPUs; {report.host.gpu or 'no GPU'}"
    parts, y = (
        [text(16, 26, f"{name}: layers and their roofs", "title"), text(16, 45, host, "small")],
        78.0,
    )
    for found in report.measured:
        panel, y = _panel(found, report.measured, y)
        parts += panel
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:.0f}" width="{_WIDTH}"'
        f' style="max-width:100%;height:auto" role="img" aria-label="{escape(name)}: layers and'
        f' their roofs"><style>{STYLE}{_OWN_STYLE}</style>'
        f'<rect class="paper" width="{_WIDTH}" height="{y:.0f}"/>{"".join(parts)}</svg>\n'
    )


def _panel(found: Anatomy, beside: Sequence[Anatomy], y: float) -> tuple[list[str], float]:
    """The picture of a candidate from y on, and where it ends."""
    parts = [
        text(16, y, f"{found.name}, {found.batch_size} images a run", "group"),
        text(16, y + 17, _summary(found), "small"),
    ]
    y += 34
    if found.machine is not None:
        plot, y = _roofline(found, beside, y)
        parts += plot
    bars, y = _bars(found, y)
    words, y = _words(found, y)
    return [*parts, *bars, *words], y + _GAP


def _summary(found: Anatomy) -> str:
    reached = found.share_of_machine
    share = "" if reached is None else f"; {reached:.0%} of the machine"
    return f"a run {_ms(found.run_seconds)}, layers {_ms(found.layer_seconds)}{share}"


def _roofline(found: Anatomy, beside: Sequence[Anatomy], top: float) -> tuple[list[str], float]:
    assert found.machine is not None
    rate, memory = found.machine.gmacs_per_s, found.machine.gb_per_s
    others = [
        other.machine.gmacs_per_s
        for other in beside
        if other.backend == found.backend and other.machine and other is not found
    ]
    least = _LEAST_MACS * sum(layer.macs for layer in found.layers)
    dots = [layer for layer in found.layers if layer.gmacs_per_s and layer.macs >= least]
    speeds = [layer.gmacs_per_s or rate for layer in dots]
    intensities = [layer.macs / layer.num_bytes for layer in dots]
    plane = _Plane([rate / memory, *intensities], [rate, *others, *speeds], top + 16)
    parts = [text(16, top + 6, "GMAC/s", "small"), *plane.grid()]
    parts += [plane.roof(other, memory, "other") for other in others]
    parts.append(plane.roof(rate, memory, ""))
    roof = f"{found.precision} {rate:,.0f} GMAC/s, memory {memory:,.0f} GB/s"
    parts.append(text(_WIDTH - _RIGHT, top + 6, roof, "small", end=True))
    numbers = {layer.name: n for n, layer in enumerate(found.costliest, 1)}
    for x, y, layer in sorted(zip(intensities, speeds, dots, strict=True), key=lambda dot: dot[:2]):
        radius = 3 + 14 * math.sqrt(layer.seconds / found.layer_seconds)
        colour, told = _TYPES.get(layer.type, "c5"), escape(_told(layer))
        parts.append(
            f'<circle class="dot {colour}" cx="{plane.x(x):.1f}" cy="{plane.y(y):.1f}"'
            f' r="{radius:.1f}"><title>{told}</title></circle>'
        )
        if layer.name in numbers:
            number = f"{numbers[layer.name]}"
            parts.append(text(plane.x(x) + radius + 2, plane.y(y) + 5, number, "number"))
    bottom = top + 16 + _PLOT + 36
    parts.append(text(_WIDTH - _RIGHT, bottom, "multiply-adds a byte", "small", end=True))
    return [*parts, *_legend(dots, bottom)], bottom + 24


def _legend(layers: Sequence[LayerTime], y: float) -> list[str]:
    """The colours of the types that really ran."""
    parts, x = [], 16.0
    for kind in dict.fromkeys(layer.type for layer in layers):
        parts.append(
            f'<circle class="{_TYPES.get(kind, "c5")}" cx="{x + 5}" cy="{y - 4:.1f}" r="5"/>'
        )
        parts.append(text(x + 15, y, f"ran in {kind}", "small"))
        x += 112
    return parts


def _bars(found: Anatomy, y: float) -> tuple[list[str], float]:
    """The layers that take the most time, in the order of the graph; then the rest as one."""
    most = sorted(found.layers, key=lambda layer: -layer.seconds)[:_MOST_BARS]
    least = _LEAST_TIME * found.layer_seconds
    shown = [layer for layer in found.layers if layer in most and layer.seconds > least]
    longest = max((layer.seconds for layer in shown), default=1.0)
    parts = [text(16, y + 6, "time of a layer; in full colour, what its roof explains", "small")]
    y += 14
    for layer in shown:
        width = layer.seconds / longest * (_WIDTH - _NAMES - _FIGURES)
        explained = min(1.0, layer.share_of_roof or 0.0) * width
        colour = _TYPES.get(layer.type, "c5")
        parts += [
            text(_NAMES - 8, y + 16, _short(layer.name), end=True),
            _bar(colour + " part", y, width),
            _bar(colour, y, explained, _told(layer)),
            text(_NAMES + width + 6, y + 16, _figures(layer, found), "small"),
        ]
        y += _ROW
    if rest := [layer for layer in found.layers if layer not in shown]:
        spent = sum(layer.seconds for layer in rest)
        parts.append(text(_NAMES, y + 16, f"all others: {_ms(spent)}", "small"))
        y += _ROW
    return parts, y


def _words(found: Anatomy, y: float) -> tuple[list[str], float]:
    """Which layers lose the most time, and why."""
    parts = []
    for number, layer in enumerate(found.costliest, 1):
        loss = f"{number}  {layer.name}: {_ms(layer.lost_seconds)} beyond its roof"
        parts.append(text(16, y + 26, loss))
        for why in layer.why.split("; "):
            parts.append(text(33, y + 44, why, "small"))
            y += 18
        y += 26
    return parts, y


def _bar(colour: str, y: float, width: float, told: str = "") -> str:
    return (
        f'<rect class="{colour}" x="{_NAMES}" y="{y + 3:.1f}" width="{width:.1f}"'
        f' height="{_ROW - 6}" rx="2"><title>{escape(told)}</title></rect>'
    )


def _figures(layer: LayerTime, found: Anatomy) -> str:
    return f"{_ms(layer.seconds)}, {layer.seconds / found.layer_seconds:.0%}"


def _told(layer: LayerTime) -> str:
    parts = [f"{layer.name}: {_ms(layer.seconds)}", ", ".join(layer.kernels), layer.why]
    return "; ".join(filter(None, parts))


def _ms(seconds: float) -> str:
    """Three digits, or all that stand before the point."""
    ms = 1000 * seconds
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.3g} ms"


def _short(name: str) -> str:
    """The end of a long name tells more than its beginning."""
    return name if len(name) <= 26 else f"\u2026{name[-25:]}"


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic scale, with some room."""
    return min(values) / 1.6, max(values) * 1.6


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between two limits; powers of ten alone if these are many."""
    powers = [10.0**n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)))]
    steps = (1, 2, 5) if high / low < 1000 else (1,)
    return [step * power for power in powers for step in steps if low <= step * power <= high]


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="axis" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
