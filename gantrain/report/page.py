"""Gathers what a run left behind and what can be measured of it, and writes the page."""

import json
import math
import platform
from collections.abc import Sequence
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
from gantrain.report import pictures
from gantrain.report.charts import line_chart, quality_diversity
from gantrain.report.face import STYLE, arrow, environment
from gantrain.report.parity import read_parity
from gantrain.runs.checkpoint import load_generator
from gantrain.runs.folder import begins_with
from gantrain.runs.log import read_stats

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
        device: where the networks run.
        cache: folder of what has been measured; the user's cache folder by default.
        progress: called with (what is being done, done, in all).

    Raises:
        GanError: something cannot be used, and why.
    """
    device = torch.device(device)
    trained = load_generator(run)
    parity = read_parity(bundle, trained) if bundle else None
    trained.network.to(device)
    real: Path | Dataset | None = data
    if real is None:
        check_there(trained.dataset_path)
        real = open_dataset(trained.dataset_path, resolution=trained.resolution)
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
    curve = {r.truncation: r.values for r in measured[1:] if r.truncation is not None}
    context = {
        "style": Markup(STYLE),
        "title": run.name,
        "run": run,
        "begins_with": begins_with(run),
        "trained": trained,
        "dataset": dataset,
        "record": measured[0],
        "arrows": arrow,
        "better": {k: v for m in metric_modules(names).values() for k, v in m.BETTER.items()},
        "charts": [Markup(chart) for chart in _charts(stats)],
        "curve": Markup(quality_diversity(curve)) if curve else "",
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
    template = environment().from_string((files("gantrain.report") / "page.html").read_text())
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, template.render(context).encode())


def _charts(stats: Sequence[dict[str, Any]]) -> list[str]:
    """Those of which the run recorded something."""
    wanted = [
        ("Losses", {"D": "loss_d", "G": "loss_g"}, None),
        ("Value of the game", {"value": "value"}, ("-log 4: D is blind", -math.log(4))),
        ("What D says", {"D(real)": "d_real", "D(generated)": "d_fake"}, ("1/2", 0.5)),
        ("Logits of D", {"real": "real_logits", "generated": "fake_logits"}, None),
        ("Norms of the gradients", {"D": "gradient_norm_d", "G": "gradient_norm_g"}, None),
        ("FID of the averaged generator", {"FID": "fid"}, None),
        ("Diversity, as a share of the data's", {"diversity": "diversity"}, ("1", 1.0)),
    ]
    charts = []
    for title, lines, rule in wanted:
        points = {
            name: [(s["images_seen"] / 1000, s[key]) for s in stats if key in s]
            for name, key in lines.items()
        }
        if sum(map(len, points.values())) > len(points):
            charts.append(line_chart(title, points, x_label="kimg", rule=rule))
    return charts
