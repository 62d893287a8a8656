"""Gathers what a run left behind and what can be measured of it, and writes the page."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from ganinfer import __version__
from ganinfer.files import write_atomic
from ganinfer.progress import Progress
from gantrain.data.dataset import Dataset
from gantrain.data.opening import open_dataset
from gantrain.evaluation.evaluate import CURVE_METRICS, evaluate
from gantrain.evaluation.references import check_there, open_reference
from gantrain.evaluation.scores import default_metrics, metric_modules
from gantrain.metrics._score import Better
from gantrain.report import pictures
from gantrain.report.charts import STYLE as CHART_STYLE
from gantrain.report.charts import line_drawing, quality_diversity
from gantrain.report.face import STYLE, arrow, environment
from gantrain.report.figures import picture_drawing, write_figures
from gantrain.report.meanings import (
    comparable_words,
    features_word,
    in_groups,
    meaning_of,
    title_of,
    trend,
)
from gantrain.report.parity import read_parity
from gantrain.report.pdf import check_pdf
from gantrain.report.shapes import Drawing
from gantrain.runs.checkpoint import load_generator
from gantrain.runs.folder import begins_with
from gantrain.runs.log import read_stats

_LOG4, _HALF = math.log(4), ("1/2", 0.5)
METRICS = (
    "fid",
    "kid",
    "inception_score",
    "precision_recall",
    "density_coverage",
    "mifid",
    "nearest_neighbour_test",
    "birthday_paradox",
)


def write_report(
    run: Path,
    output: Path,
    *,
    data: Path | None = None,
    bundle: Path | None = None,
    num_images: int = 10_000,
    extractor: str = "classifier",
    truncations: Sequence[float] = (),
    figures: Path | None = None,
    device: torch.device | str = "cpu",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Write one HTML file that needs nothing else.

    Args:
        run: folder of a run.
        output: the file.
        data: prepared dataset; that of the run by default.
        bundle: exported from the run; the gates that it passed are shown.
        num_images: that the figures are taken from.
        extractor: see `open_reference`.
        truncations: of the quality-diversity curve; none draws none.
        figures: folder for figures of papers, each as SVG and PDF; None writes none.
        device: where the networks run.
        cache: folder of what has been measured; the user's cache folder by default.
        progress: called with (what is being done, done, in all).

    Raises:
        GanError: something cannot be used, and why.
    """
    if figures is not None:
        check_pdf()
    device = torch.device(device)
    trained = load_generator(run)
    parity = read_parity(bundle, trained) if bundle else None
    trained.network.to(device)
    real: Path | Dataset | None = data
    if real is None:
        check_there(trained.dataset_path)
        real = open_dataset(
            trained.dataset_path,
            resolution=trained.resolution,
            labelled=trained.config.data.labels,
        )
    reference = open_reference(
        real,
        resolution=trained.resolution,
        extractor=extractor,
        device=device,
        cache=cache,
        progress=progress,
    )
    dataset = reference.dataset
    names = default_metrics(dataset, conditional=bool(trained.classes))
    if dataset.points is None:
        names = list(dict.fromkeys([*METRICS, *names]))
    measured = [
        evaluate(
            run,
            data,
            metrics=names if point is None else CURVE_METRICS,
            num_images=num_images,
            truncation=point,
            extractor=extractor,
            device=device,
            cache=cache,
            progress=progress,
        )
        for point in (None, *truncations)
    ]
    stats = read_stats(run / "stats.jsonl")
    shown = [("Samples", pictures.class_grid(trained, dataset, device))]
    if dataset.points is None:
        shown += [
            ("Nearest training images", pictures.neighbours(trained, reference, device)),
            ("Interpolations", pictures.interpolations(trained, device)),
        ]
        if (strip := pictures.truncation_strip(trained, device)) is not None:
            shown.insert(2, ("Truncation", strip))
    record = measured[0]
    swept = {r.truncation: r.values for r in measured[1:] if r.truncation is not None}
    curve = quality_diversity(swept, features_word(record.extractor)) if swept else None
    # Training measures by what the dataset brings along, whatever the extractor here.
    seen_by = "classifier" if dataset.points is None else "points"
    charts = _charts(stats, trained.images_seen, f"{seen_by}-FID")
    better = {k: v for m in metric_modules(names).values() for k, v in m.BETTER.items()}
    context = {
        "style": Markup(STYLE),
        "title": run.name,
        "run": run,
        "begins_with": begins_with(run),
        "trained": trained,
        "dataset": dataset,
        "record": record,
        "groups": in_groups(record.scores),
        "features": features_word(record.extractor),
        "title_of": title_of,
        "trends": _trends(stats, better),
        "comparable": comparable_words(record.extractor, record.num_images),
        "arrows": arrow,
        "better": better,
        "chart_style": Markup(CHART_STYLE),
        "charts": [Markup(chart.svg()) for chart in charts.values()],
        "curve": Markup(curve.svg()) if curve else "",
        "history": pictures.history(run),
        "pictures": shown,
        "warnings": [(s["images_seen"], w) for s in stats for w in s.get("warnings", [])],
        "parity": parity,
        "bundle": bundle,
        "config": json.dumps(json.loads((run / "config.json").read_text()), indent=2),
        "versions": {
            "ganpipe": __version__,
            "torch": torch.__version__,
            "Python": platform.python_version(),
        },
    }
    templates = environment()
    templates.filters["meaning_of"] = meaning_of
    template = templates.from_string((files("gantrain.report") / "page.html").read_text())
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, template.render(context).encode())
    if figures is not None:
        drawings = charts | ({"quality-diversity": curve} if curve else {})
        drawings |= {
            title.lower().replace(" ", "-"): picture_drawing(title, picture)
            for title, picture in shown
        }
        write_figures(figures, drawings)


def _charts(stats: Sequence[dict[str, Any]], images_seen: int, fid: str) -> dict[str, Drawing]:
    """Those of which the run recorded something, by the names of their figures."""
    wanted = [
        ("losses", "Losses", "loss", {"D": "loss_d", "G": "loss_g"}, None),
        ("value", "Value of the game", "nats", {"value": "value"}, ("-log 4: D is blind", -_LOG4)),
        ("says", "What D says", "probability", {"D(real)": "d_real", "D(made)": "d_fake"}, _HALF),
        ("logits", "Logits of D", "logit", {"real": "real_logits", "made": "fake_logits"}, None),
        ("gradients", "Gradients", "norm", {"D": "gradient_norm_d", "G": "gradient_norm_g"}, None),
        ("fid", f"{fid} over time, of the averaged G", fid, {fid: "fid"}, None),
        (
            "diversity",
            "Diversity",
            "share of the data's",
            {"diversity": "diversity"},
            ("as the data", 1.0),
        ),
    ]
    charts = {}
    for name, title, unit, lines, rule in wanted:
        points = {
            line: [(s["images_seen"] / 1000, s[key]) for s in stats if key in s]
            for line, key in lines.items()
        }
        if sum(map(len, points.values())) > len(points):
            charts[name] = line_drawing(
                title,
                points,
                x_label="thousand images seen (kimg)",
                x_range=(0, images_seen / 1000),
                y_label=unit,
                rule=rule,
            )
    return charts


def _trends(stats: Sequence[dict[str, Any]], better: Mapping[str, Better]) -> dict[str, str]:
    """Of each score that training measured twice, how its last value stands to the one before."""
    trends = {}
    for name, direction in better.items():
        measured = [(s["images_seen"] / 1000, s[name]) for s in stats if name in s][-2:]
        if len(measured) == 2:
            (when, before), (then, now) = measured
            judged = trend(before, now, direction)
            if judged:
                trends[name] = (
                    f"in training {judged}: {before:.4g} at {when:.4g} kimg,"
                    f" {now:.4g} at {then:.4g} kimg"
                )
    return trends
