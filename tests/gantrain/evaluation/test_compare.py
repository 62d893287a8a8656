"""Several targets against the same data: what is better, and how sure that is."""

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import draw_shapes

from ganinfer.errors import ConfigError, DataError
from gantrain.data.prepare import prepare
from gantrain.evaluation.compare import Comparison, compare
from gantrain.evaluation.resampling import Found, differences, holm, resampled_means
from gantrain.metrics import density_coverage, fid, precision_recall
from gantrain.metrics._measured import Measured
from gantrain.metrics._reference import Reference
from gantrain.metrics._score import Score
from gantrain.report.comparison import write_comparison

RNG = np.random.default_rng(0)


def share(values: np.ndarray, images: str = "x") -> Found:
    return Found({"s": Score(float(values.mean()), 0.1)}, {"s": values}, images)


def test_means_of_resamples_spread_as_a_mean_does() -> None:
    values = RNG.normal(size=(400, 2)) * [1, 3]
    means = resampled_means(values, seed=[0])
    assert means.shape == (10_000, 2)
    np.testing.assert_allclose(means.std(0), values.std(0) / 20, rtol=0.04)


@pytest.mark.parametrize(("shift", "seen"), [(0.0, 0.05), (0.3, 1.0)])
def test_chance_passes_for_a_difference_one_time_in_twenty(
    shift: float, seen: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gantrain.evaluation.resampling.NUM_RESAMPLES", 1000)
    told = []
    for number in range(200):
        a, b = RNG.normal(size=300), RNG.normal(shift, 1, 300)
        found = differences([share(a, f"a{number}"), share(b, f"b{number}")], {"s": "higher"})[0]
        told.append(found.verdict == "better" or found.verdict == "worse")
    assert np.mean(told) == pytest.approx(seen, abs=0.06)


def test_images_of_the_same_seeds_are_resampled_together() -> None:
    common = RNG.normal(size=500)
    a, b = common, common + 0.01 + 0.01 * RNG.normal(size=500)
    paired, apart = (
        differences([share(a, "x"), share(b, name)], {"s": "higher"})[0] for name in ("x", "y")
    )
    assert paired.verdict == "better"
    assert apart.verdict == "no difference seen"
    assert paired.low is not None
    assert paired.high is not None
    assert paired.low < paired.value < paired.high
    assert paired.value == pytest.approx(np.mean(b - a))
    same = differences([share(a), share(a)], {"s": "higher"})[0]
    assert (same.value, same.p, same.verdict) == (0, 1, "no difference seen")
    assert differences([share(a), share(b)], {"s": None})[0].verdict == "differs"


def test_without_parts_standard_errors_judge_and_without_those_nothing_does() -> None:
    scores = [{"s": Score(1.0, 0.1), "t": Score(1.0)}, {"s": Score(1.3, 0.1), "t": Score(9.0)}]
    found = differences([Found(one, {}, n) for n, one in enumerate(scores)], {"s": "lower"})
    assert [d.method for d in found] == ["standard errors", "none"]
    assert found[0].p == pytest.approx(0.0339, abs=1e-3)  # of z = 0.3 / 0.1414
    assert [d.verdict for d in found] == ["worse", "not known"]


def test_holm_corrects_for_the_number_of_differences() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def side(features: np.ndarray) -> Measured:
    return Measured([{"features": features.astype(np.float32)}], None, torch.device("cpu"))


@pytest.mark.parametrize("metric", [fid, precision_recall, density_coverage])
def test_parts_tell_how_far_other_images_would_move_a_score(metric: ModuleType) -> None:
    """Never much less, for that would pass chance off as a difference."""
    reference = Reference(None, lambda: None)  # type: ignore[arg-type, return-value]
    reference.real = side(RNG.normal(size=(600, 6)))
    sets = [side(RNG.normal(0.2, 1.1, (300, 6))) for _ in range(60)]
    scores = [metric.scores(reference, one) for one in sets]
    parts = [metric.parts(reference, one) for one in sets]
    assert parts[0].keys() == scores[0].keys()
    for name in parts[0]:
        spread = np.std([found[name].value for found in scores])
        told = np.mean([found[name].std() / 300**0.5 for found in parts])
        assert 0.8 * spread < told < 2.5 * spread, name


def test_parts_of_recall_and_coverage_are_what_is_lost_without_an_image() -> None:
    reference = Reference(None, lambda: None)  # type: ignore[arg-type, return-value]
    reference.real, features = side(RNG.normal(size=(50, 3))), RNG.normal(0.5, 1, (20, 3))
    for metric, name in ((precision_recall, "recall"), (density_coverage, "coverage")):
        whole = metric.scores(reference, side(features))[name].value
        found = metric.parts(reference, side(features))[name]
        without = [
            metric.scores(reference, side(np.delete(features, n, axis=0)))[name].value
            for n in range(20)
        ]
        np.testing.assert_allclose(found, 19 * (whole - np.array(without)), atol=1e-9)


def test_few_images_have_no_parts_of_fid() -> None:
    reference = Reference(None, lambda: None)  # type: ignore[arg-type, return-value]
    reference.real = side(RNG.normal(size=(600, 6)))
    assert fid.parts(reference, side(RNG.normal(size=(6, 6)))) == {}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two draws of the data's own distribution, and one with noise, seen by a network of a file."""
    folder = tmp_path_factory.mktemp("compared")
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = torch.jit.script(torch.nn.Sequential(*layers, torch.nn.Flatten()).eval())
        network.save(str(folder / "net.pt"))
    for seed, name in enumerate(("data", "good", "also", "noisy")):
        images, labels = draw_shapes(500 if name == "good" else 400, seed=seed + 1)
        if name == "noisy":
            images = images // 2 + RNG.integers(0, 60, images.shape, dtype=np.uint8)
        np.savez(folder / f"{name}.npz", images=images, labels=labels)
    paths = [folder / f"{name}.npz" for name in ("good", "also", "noisy")]
    return compare(
        paths, folder / "data.npz", extractor=str(folder / "net.pt"), cache=folder / "cache"
    )


def test_a_worse_target_is_told_from_equal_ones(compared: Comparison) -> None:
    verdicts = {(d.score, d.first, d.second): d.verdict for d in compared.differences}
    assert {record.num_images for record in compared.records} == {400}  # as many of each
    for name in ("fid", "kid", "coverage"):
        assert verdicts[name, 0, 1] == "no difference seen"
        assert verdicts[name, 0, 2] == verdicts[name, 1, 2] == "worse"
    assert [len(images) for images in (*compared.samples, compared.real)] == [36] * 4
    methods = {d.score: d.method for d in compared.differences}
    assert methods == {"kid": "standard errors"} | dict.fromkeys(
        ("fid", "precision", "recall", "density", "coverage"), "bootstrap"
    )


def test_a_run_and_its_bundle_do_not_differ(run: Path, bundle: Path) -> None:
    found = compare([run, bundle], metrics=["fid", "label_accuracy"], num_images=300)
    fids, *_ = found.differences
    assert fids.low is not None
    assert fids.high is not None
    assert fids.high - fids.low < 0.05 * found.records[0].values["fid"]  # of the same seeds
    assert {d.verdict for d in found.differences} == {"no difference seen"}


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for key, value in attrs if key in ("src", "href")]


def test_the_page_needs_nothing_else_and_tells_what_differs(
    compared: Comparison, tmp_path: Path
) -> None:
    output = tmp_path / "sub" / "page.html"
    write_comparison(compared, output)
    text = output.read_text()
    links = Links()
    links.feed(text)
    assert len(links.found) == 4  # three targets and the data
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert "<script" not in text
    assert text.count('<svg class="bar"') == len(compared.differences) == 18
    assert re.search(r"C is worse", text)
    assert "noisy.npz" in text


def test_what_cannot_be_compared_is_refused(run: Path, tmp_path: Path, shapes: Path) -> None:
    with pytest.raises(ConfigError, match="found 1; expected two"):
        compare([run])
    with pytest.raises(DataError, match="give --data"):
        compare([run, shapes], num_images=10)
    made = prepare("digits", tmp_path / "digits", resolution=16).path
    with pytest.raises(DataError, match="10 classes, and the generator has no"):
        compare([run, run], made, num_images=10)
