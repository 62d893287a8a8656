import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganinfer.bundle.manifest import gate_result
from ganinfer.errors import BundleError, CheckpointError
from ganinfer.lookup import module_names
from gantrain.evaluation.scores import metric_modules
from gantrain.metrics.birthday_paradox import support_size
from gantrain.report.charts import Axis, line_chart, line_drawing, quality_diversity
from gantrain.report.figures import write_figures
from gantrain.report.meanings import MEANINGS, comparable_words, title_of, trend
from gantrain.report.page import write_report
from gantrain.report.parity import gate_bar, read_parity
from gantrain.report.shapes import Dot, Line, Text
from gantrain.runs.checkpoint import load_generator


def heights(svg: str) -> list[float]:
    """The y of every point of the first line."""
    line = next(e for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("polyline"))
    return [float(point.split(",")[1]) for point in line.attrib["points"].split()]


def test_a_line_rises_where_its_values_do() -> None:
    found = heights(line_chart("t", {"a": [(0, 1), (1, 3), (2, 2)]}, x_label="x"))
    assert found[1] < found[2] < found[0]  # y grows downwards


def test_a_level_line_is_within_the_picture() -> None:
    svg = line_chart("t", {"a": [(0, 1), (1, 2)]}, x_label="x", rule=("far", -10))
    rule = next(e for e in ElementTree.fromstring(svg).iter() if e.attrib.get("class") == "rule")
    assert 0 < float(rule.attrib["y1"]) < 260
    assert float(rule.attrib["y1"]) > max(heights(svg))


def test_what_is_not_finite_or_too_much_is_left_out() -> None:
    points = [(float(n), float("nan") if n % 2 else float(n)) for n in range(2000)]
    assert 250 <= len(heights(line_chart("t", {"a": points}, x_label="x"))) <= 300
    assert "no figures" in line_chart("t", {"a": [(0, float("inf"))]}, x_label="x")


def test_text_is_escaped() -> None:
    svg = line_chart("<b>", {"a&b": [(0, 1), (1, 2)], "c": [(0, 1)]}, x_label="<x>")
    ElementTree.fromstring(svg)
    assert "&lt;b&gt;" in svg


@pytest.mark.parametrize("values", [[0, 1], [-1.3863, 0.1], [5, 5], [1e-9, 3e-9], [0, 123456]])
def test_an_axis_has_a_few_round_ticks_around_all_values(values: list[float]) -> None:
    axis = Axis.around(values)
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert 3 <= len(axis.ticks) <= 8


def test_the_curve_of_a_sweep_marks_its_truncations() -> None:
    swept = {
        0.5: {"fid": 9.0, "inception_score": 7.0, "precision": 0.9, "recall": 0.2},
        1.0: {"fid": 4.0, "inception_score": 6.0, "precision": 0.7, "recall": 0.6},
    }
    svg = quality_diversity(swept, "classifier").svg()
    texts = [e.text for e in ElementTree.fromstring(svg).iter()]
    assert texts.count("0.5") >= 2
    assert "classifier-FID against classifier score, by truncation" in texts
    assert "recall (from 0 to 1)" in texts


def test_an_axis_of_training_ends_where_the_run_does() -> None:
    drawing = line_drawing("t", {"a": [(5, 1), (43, 2)]}, x_label="kimg", x_range=(0, 43))
    line = next(
        shape for shape in drawing.shapes if isinstance(shape, Line) and shape.kind == "line"
    )
    grid = next(
        shape for shape in drawing.shapes if isinstance(shape, Line) and shape.kind == "grid"
    )
    assert line.points[-1][0] == grid.points[-1][0]
    assert line.points[0][0] > grid.points[0][0]


@pytest.mark.parametrize(("count", "marked"), [(3, 3), (40, 0)])
def test_points_are_marked_where_they_are_few(count: int, marked: int) -> None:
    drawing = line_drawing("t", {"a": [(n, n) for n in range(count)]}, x_label="kimg")
    assert len([shape for shape in drawing.shapes if isinstance(shape, Dot)]) == marked


@pytest.mark.parametrize(("heights", "anchor"), [((1, 2), "end"), ((2, 1), "start")])
def test_labels_of_points_are_not_crossed_by_their_line(heights, anchor: str) -> None:
    points = list(enumerate(heights))
    drawing = line_drawing("t", {"": points}, x_label="x", point_labels=["first", "last"])
    (label,) = (s for s in drawing.shapes if isinstance(s, Text) and s.words == "first")
    assert label.anchor == anchor


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.headings: list[str] = []
        self._in_heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for key, value in attrs if key in ("src", "href")]
        self._in_heading = tag == "h2"

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings.append(data)
            self._in_heading = False


@pytest.fixture(scope="module")
def page(run: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("report") / "sub" / "report.html"
    run = Path(shutil.copytree(run, output.parents[1] / "run"))
    with (run / "stats.jsonl").open("a") as file:  # as with eval_kimg
        file.write('{"images_seen": 200, "fid": 9.5}\n{"images_seen": 400, "fid": 9.0}\n')
    figures = output.parent / "figures"
    write_report(
        run, output, bundle=bundle, num_images=300, truncations=[0.5, 1.0], figures=figures
    )
    return output


def test_the_page_needs_nothing_else_and_has_its_parts(page: Path) -> None:
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert links.found
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert "<script" not in text
    for heading in (
        "Figures",
        "Samples",
        "Training",
        "Samples through training",
        "Nearest training images",
        "Truncation",
        "Interpolations",
        "Quality against diversity",
        "How it was made",
    ):
        assert heading in links.headings
    assert any(heading.startswith("Parity of") for heading in links.headings)
    assert "Losses" in text
    assert re.search(r"coverage.*?<b>0\.\d+", text, re.S)


def test_the_page_says_whose_features_and_what_every_score_means(page: Path) -> None:
    text = page.read_text()
    assert "classifier-FID" in text
    assert "Not comparable with papers" in text
    assert "Quality and variety apart" in text
    assert "In training better: 9.5 at 0.2 kimg, 9 at 0.4 kimg" in text


def test_every_score_of_ours_has_its_meaning() -> None:
    modules = metric_modules(module_names("gantrain.metrics")).values()
    scores = {score for module in modules for score in module.BETTER}
    assert scores == set(MEANINGS)


def test_a_distance_says_by_whose_features_it_is() -> None:
    assert title_of("fid", "classifier") == "classifier-FID"
    assert "Not comparable" in comparable_words("vgg.onnx", 50_000)
    assert "Not comparable" not in comparable_words("inception", 50_000)


@pytest.mark.parametrize(
    ("before", "now", "better", "judged"),
    [
        (9, 8, "lower", "better"),
        (9, 8, "higher", "worse"),
        (0.9, 0.6, 0.5, "better"),
        (9, 8, None, ""),
    ],
)
def test_a_score_is_better_or_worse_than_before(before, now, better, judged) -> None:
    assert trend(before, now, better) == judged


def test_without_near_duplicates_a_support_is_larger_than_what_is_told() -> None:
    score = support_size(torch.arange(40.0)[:, None], near=0.1)
    assert score.prefix == "more than "
    assert score.value == 40 * 39 / 2
    assert support_size(torch.zeros(40, 1), near=0.1).prefix == ""


FIGURES = (
    "losses",
    "fid",
    "quality-diversity",
    "samples",
    "interpolations",
    "nearest-training-images",
)


def test_figures_for_papers_are_svg_and_pdf_with_their_words(page: Path) -> None:
    figures = page.parent / "figures"
    for name in FIGURES:
        svg = ElementTree.parse(figures / f"{name}.svg").getroot()
        assert not [
            e for e in svg.iter() if e.tag.endswith("style")
        ]  # a program for papers has none
        assert (figures / f"{name}.pdf").read_bytes().startswith(b"%PDF-1")


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="needs poppler's pdftotext")
def test_a_reader_of_pdf_finds_the_words_of_a_figure(tmp_path: Path) -> None:
    lines = {"D": [(0.0, 1.0), (1.0, 2.0)], "G (made)": [(0.0, 2.0), (1.0, 1.5)]}
    drawing = line_drawing("Losses", lines, x_label="kimg", y_label="loss", rule=("half", 1.5))
    write_figures(tmp_path, {"losses": drawing})
    command = ["pdftotext", tmp_path / "losses.pdf", "-"]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    assert {"Losses", "kimg", "loss", "half", "D"} <= set(found.stdout.split())
    assert "G (made)" in found.stdout
    assert found.stderr == ""  # the file is whole


def test_a_bundle_of_another_run_is_refused(run: Path, bundle: Path) -> None:
    trained = load_generator(run)
    other = dataclasses.replace(trained, dataset_sha256="0" * 64)
    with pytest.raises(BundleError, match="from another run than .*its model or dataset differs"):
        read_parity(bundle, other)


def test_the_parity_section_says_how_sure_every_gate_is(
    page: Path, run: Path, bundle: Path
) -> None:
    text = " ".join(page.read_text().split())
    assert "All gates passed.</b> What ships" in text
    assert "Distances are between features of: classifier" in text
    assert text.count('<svg class="bar"') == text.count("passed</span>") == 19
    assert "1,000 images" in text
    for asked in read_parity(bundle, load_generator(run)).asked:
        assert asked.meaning
        assert f"<h3>{asked.gate}</h3>" in text


def bar_places(value: float, limit: str, interval: tuple[float, float]) -> list[float]:
    """Where the ends of the interval, the value and what passes begin."""
    gate = gate_result("onnx", "g", value, limit, True, num_images=9, interval=interval)
    parts = {e.attrib.get("class"): e.attrib for e in ElementTree.fromstring(gate_bar(gate))}
    line, dot, allowed = (parts[name] for name in ("interval", "value", "allowed"))
    return [float(line["x1"]), float(line["x2"]), float(dot["cx"]), float(allowed["x"])]


def test_a_bar_draws_a_value_against_its_limit() -> None:
    assert bar_places(0.05, "<= 0.1", (0.02, 0.1)) == [18.0, 90.0, 45.0, 0.0]
    assert bar_places(66.0, ">= 55", (60.5, 999.0)) == [99.0, 175.0, 108.0, 90.0]
    assert gate_bar(gate_result("onnx", "g", 0, "== 0", True, num_images=9)) == ""


def test_mistakes_are_named(run: Path, tmp_path: Path) -> None:
    unverified = export_run(
        run, tmp_path / "x.gan", ExportOptions(precisions=["fp32"], verify=False)
    ).path
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        write_report(tmp_path, tmp_path / "x.html")
    with pytest.raises(BundleError, match="--no-verify"):
        write_report(run, tmp_path / "x.html", bundle=unverified, num_images=10)
    assert not (tmp_path / "x.html").exists()


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1100, False), (1100, True)])
def test_a_browser_shows_it_on_a_phone_and_in_the_dark(
    page: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    shot = tmp_path / "shot.png"
    subprocess.run(
        [
            *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []),
            *(f"--window-size={max(width, 500)},1600", f"--screenshot={shot}", page.as_uri()),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    picture = Image.open(shot).convert("L")
    colours = picture.getcolors(256)
    assert colours is not None
    background = max(colours)[1]
    assert (background < 60) is dark
    assert len(colours) > 50  # more than an empty page
