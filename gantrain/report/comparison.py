"""A page about several runs, bundles or folders: their figures, what differs, samples."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ganinfer.drawing.images import Images, encode_png, grid
from ganinfer.files import write_atomic
from gantrain.evaluation.compare import Comparison
from gantrain.evaluation.resampling import Difference
from gantrain.report.face import BAR_MARGIN, BAR_WIDTH, STYLE, arrow, bar, environment
from gantrain.report.pictures import Picture
from gantrain.runs.samples import scatter


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
    middle = BAR_WIDTH / 2

    def place(value: float) -> float:
        return middle + (middle - BAR_MARGIN) * value / (reach or 1)

    label = f"{difference.score} {difference.value:+.3g}"
    return bar(difference.value, difference.low, difference.high, place, label=label)


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
