"""A page about several runs, bundles or folders: their figures, what differs, samples."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ganinfer.drawing.images import Images, encode_png, grid
from ganinfer.files import write_atomic
from gantrain.evaluation.compare import Comparison
from gantrain.evaluation.resampling import Difference
from gantrain.report.face import STYLE, arrow, environment
from gantrain.report.pictures import Picture
from gantrain.runs.samples import scatter

_WIDTH, _HEIGHT, _MARGIN = 180, 16, 5


def write_comparison(comparison: Comparison, output: Path) -> None:
    """Write one HTML file that needs nothing else."""
    first = comparison.records[0]
    by_score: dict[str, list[Difference]] = {}
    for difference in comparison.differences:
        by_score.setdefault(difference.score, []).append(difference)
    bars = {name: Markup(bar) for name, bar in _bars(comparison.differences).items()}
    notes = {
        (record.target, name): score.note
        for record in comparison.records
        for name, score in record.scores.items()
        if score.note
    }
    context = {
        "style": Markup(STYLE),
        "letters": letters(len(comparison.records)),
        "records": comparison.records,
        "first": first,
        "names": list(first.scores),
        "better": comparison.better,
        "arrows": arrow,
        "by_score": by_score,
        "bars": bars,
        "notes": notes,
        "samples": [_picture(images, "") for images in comparison.samples],
        "real": _picture(comparison.real, first.dataset) if comparison.real else None,
    }
    template = files("gantrain.report") / "comparison.html"
    output.parent.mkdir(parents=True, exist_ok=True)
    page = environment().from_string(template.read_text()).render(context)
    write_atomic(output, page.encode())


def letters(count: int) -> list[str]:
    """A, B, ..., Z, 27, 28, ...: what targets are called in tables."""
    return [chr(ord("A") + n) if n < 26 else str(n + 1) for n in range(count)]


def _bars(differences: Sequence[Difference]) -> dict[Difference, str]:
    """A bar for each difference; those of one score have one scale."""
    reach: dict[str, float] = {}
    for d in differences:
        ends = [abs(end) for end in (d.value, d.low, d.high) if end is not None]
        reach[d.score] = max(reach.get(d.score, 0), *ends)
    return {d: difference_bar(d, reach[d.score]) for d in differences}


def difference_bar(difference: Difference, reach: float) -> str:
    """A difference with its interval, as SVG: 0 in the middle, -reach and reach at the ends."""
    middle, y = _WIDTH / 2, _HEIGHT / 2

    def place(value: float) -> float:
        return middle + (middle - _MARGIN) * value / (reach or 1)

    parts = [
        f'<rect class="track" width="{_WIDTH}" height="{_HEIGHT}" rx="3"/>',
        f'<line class="limit" x1="{middle}" x2="{middle}" y1="0" y2="{_HEIGHT}"/>',
    ]
    if difference.low is not None and difference.high is not None:
        ends = f'x1="{place(difference.low):.1f}" x2="{place(difference.high):.1f}"'
        parts.append(f'<line class="interval" {ends} y1="{y}" y2="{y}"/>')
    parts.append(f'<circle class="value" cx="{place(difference.value):.1f}" cy="{y}" r="3.5"/>')
    label = escape(f"{difference.score} {difference.value:+.3g}")
    return (
        f'<svg class="bar" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _picture(images: Sequence[Images], caption: str) -> Picture:
    """A grid of images, those of other sizes than the first brought to it; points as dots."""
    from PIL import Image

    if images[0].dtype != np.uint8:
        points = np.stack(images)[:, 0, 0].astype(np.float32)
        return Picture(encode_png(scatter(points)), caption)
    height, width, channels = images[0].shape
    tiles = []
    for image in images:
        if image.shape != images[0].shape:
            picture = Image.fromarray(image.squeeze()).resize((width, height))
            image = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
        tiles.append(image.reshape(height, width, channels))
    return Picture(encode_png(grid(np.stack(tiles))), caption)
