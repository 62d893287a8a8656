"""A generator is asked for each class as often as the data has it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_recipe
from numpy.typing import NDArray

from gantrain.data.dataset import Dataset
from gantrain.data.prepare import prepare
from gantrain.evaluation.evaluate import evaluate
from gantrain.evaluation.frequencies import asked_as
from gantrain.evaluation.references import open_reference
from gantrain.evaluation.scores import score_images, score_network
from gantrain.evaluation.targets import Target
from gantrain.game.config import parse_config
from gantrain.metrics._generated import Generated
from gantrain.metrics._moments import Moments
from gantrain.metrics._reference import save_moments
from gantrain.runs.checkpoint import load_checkpoint, load_generator
from gantrain.training.train import train

LEVELS = np.array([60, 200])


def shades(labels: Any, seed: int) -> NDArray[np.uint8]:
    """uint8 (N, 8, 8, 1): the data's own distribution of a class is a shade and some noise."""
    rng = np.random.default_rng(seed)
    values = LEVELS[labels][:, None, None, None] + rng.normal(0, 8, (len(labels), 8, 8, 1))
    return np.rint(values).astype(np.uint8)


def perfect(seeds: Sequence[int], labels: Any) -> NDArray[Any]:
    return shades(labels, int(seeds[0]))


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 950 dark and 50 bright images."""
    folder = tmp_path_factory.mktemp("rare")
    labels = np.repeat([0, 1], [950, 50])
    np.savez(folder / "x.npz", images=shades(labels, 1 << 40), labels=labels)
    return prepare(str(folder / "x.npz"), folder / "data").path


def test_a_perfect_generator_of_rare_classes_scores_well(rare: Path) -> None:
    reference = open_reference(rare)
    target = Target(Generated("perfect", range(1000), 2, perfect), ["0", "1"])
    found = {}
    for how in ("data", "uniform"):
        asked = asked_as(target, reference, how)  # type: ignore[arg-type]
        assert asked.frequencies == how
        score = score_images(asked.source, reference, metrics=["fid", "modes"]).values
        found[how] = score
    assert found["data"]["fid"] < 0.02 * found["uniform"]["fid"]
    assert found["data"]["modes_kl"] < 0.01 < 0.5 < found["uniform"]["modes_kl"]


def test_a_run_measures_and_keeps_its_best_with_the_frequencies_of_its_data(
    rare: Path, tmp_path: Path
) -> None:
    options = {"total_kimg": 1, "eval_kimg": 0.5, "eval_images": 100, "sample_kimg": 1}
    tree = tiny_recipe(rare, **options)
    run = train(parse_config(tree, where="x"), tmp_path / "run").run
    network = load_generator(run).network
    reference = open_reference(rare)
    measured = score_network(network, reference, num_images=100)
    asked = evaluate(run, metrics=["fid"], num_images=100)
    assert measured["fid"] == pytest.approx(asked.values["fid"], rel=1e-6)
    assert asked.class_frequencies == "data"
    alike = evaluate(run, metrics=["fid"], num_images=100, class_frequencies="uniform")
    assert alike.values["fid"] != asked.values["fid"]
    assert load_checkpoint(run / "best.safetensors")["best_fid_classes"] == "data"


def test_equal_frequencies_are_what_seeds_draw_anyway(run: Path) -> None:
    found = [
        evaluate(run, metrics=["fid"], num_images=60, class_frequencies=how)
        for how in ("data", "uniform")
    ]
    assert found[0].values == found[1].values
    assert [record.class_frequencies for record in found] == ["data", "uniform"]


@pytest.mark.slow
def test_without_classes_in_the_data_those_of_the_training_count(
    run: Path, shapes: Path, tmp_path: Path
) -> None:
    images = np.array(Dataset(shapes).images)
    np.savez(tmp_path / "x.npz", images=images)
    prepare(str(tmp_path / "x.npz"), tmp_path / "data")
    found = evaluate(run, tmp_path / "data", metrics=["fid"], num_images=50)
    assert found.class_frequencies == "training data"
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(100, 2048)))
    save_moments(Moments.of([features]), tmp_path / "moments.npz")
    moments = open_reference(tmp_path / "moments.npz", extractor="inception")
    target = Target(Generated("x", range(10), 2, perfect), ["0", "1"])
    assert asked_as(target, moments, "data").frequencies == "uniform"
