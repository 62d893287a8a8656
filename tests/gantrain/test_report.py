import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from ganinfer.bundle.manifest import gate_result
from ganinfer.errors import BundleError, CheckpointError
from gantrain.report.charts import Axis, line_chart, quality_diversity
from gantrain.report.page import write_report
from gantrain.report.parity import gate_bar, read_parity
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
    texts = [e.text for e in ElementTree.fromstring(quality_diversity(swept)).iter()]
    assert texts.count("0.5") >= 2
    assert "Inception score" in texts
    assert "recall" in texts


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
    write_report(run, output, bundle=bundle, num_images=300, truncations=[0.5, 1.0])
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
