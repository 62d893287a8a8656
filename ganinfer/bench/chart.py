"""Images/s of the candidates as a picture: SVG without script, readable in light and dark."""

from html import escape
from pathlib import Path

from ganinfer.bench import Report

_WIDTH, _LEFT, _RIGHT = 720, 200, 90
_ROW, _GROUP_GAP, _TOP = 20, 34, 62
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1b1f24; }
.title { font-size: 14px; font-weight: 600; } .group { font-weight: 600; } .small { opacity: .75; }
.c0 { fill: #0b62c4; } .c1 { fill: #c2410c; } .c2 { fill: #15803d; }
.c3 { fill: #7e22ce; } .c4 { fill: #8a6d00; } .c5 { fill: #64748b; }
.paper { fill: #fff; }
@media (prefers-color-scheme: dark) { text { fill: #e6e9ee; } .paper { fill: #14181d; }
  .c0 { fill: #6cb2ff; } .c1 { fill: #ff9a5c; } .c2 { fill: #66d18a; }
  .c3 { fill: #c79bff; } .c4 { fill: #e3c34d; } .c5 { fill: #9aa7b8; } }
"""


def bar_chart(report: Report) -> str:
    """Bars of all candidates, grouped by images a call; each group has a scale of its own."""
    name = Path(report.bundle).name
    host = f"{report.host.cpu}, {report.host.cpus} CPUs; {report.host.gpu or 'no GPU'}"
    parts = [
        text(16, 26, f"{name}: images/s", "title"),
        text(16, 45, f"{host}. Each group on its own scale.", "small"),
    ]
    y = _TOP
    for n in sorted({n for found in report.measured for n in found.images_per_s}):
        drawn = [(k, found) for k, found in enumerate(report.measured) if n in found.images_per_s]
        most = max(found.images_per_s[n] for _, found in drawn)
        parts.append(text(16, y + 14, f"{n} {'image' if n == 1 else 'images'} a call", "group"))
        y += 22
        for k, found in drawn:
            rate = found.images_per_s[n]
            length = rate / most * (_WIDTH - _LEFT - _RIGHT)
            parts += [
                text(_LEFT - 8, y + 13, found.name, end=True),
                f'<rect class="c{k % 6}" x="{_LEFT}" y="{y + 2}" width="{length:.1f}"'
                f' height="{_ROW - 5}" rx="2"/>',
                text(_LEFT + length + 6, y + 13, f"{rate:,.0f}" if rate >= 10 else f"{rate:.3g}"),
            ]
            y += _ROW
        y += _GROUP_GAP - 22
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}"'
        f' role="img" aria-label="{escape(name)}: images per second"><style>{STYLE}</style>'
        f'<rect class="paper" width="{_WIDTH}" height="{y}"/>{"".join(parts)}</svg>\n'
    )


def text(x: float, y: float, words: str, kind: str = "", *, end: bool = False) -> str:
    """Words of an SVG, which begin at x or end there."""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{anchor}>{escape(words)}</text>'
