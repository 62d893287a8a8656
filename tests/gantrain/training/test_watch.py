import json
from pathlib import Path

import numpy as np
import pytest

from gantrain.data.prepare import prepare
from gantrain.game.config import parse_config
from gantrain.training.train import train
from gantrain.training.watch import PATIENCE, Watch, diversity

GOOD = {"d_real": 0.6, "d_fake": 0.4, "gradient_norm_g": 1.0}


def look(watch: Watch, stats: dict[str, float], times: int = PATIENCE) -> list[str]:
    return [text for _ in range(times) for text in watch.look(stats, share_done=0.5)]


@pytest.mark.parametrize(
    ("stats", "words"),
    [
        ({"d_real": 0.999, "d_fake": 0.0001}, "the discriminator is saturated: .*add r1"),
        ({"gradient_norm_g": 1e-6}, "gradient has vanished: its norm is 1e-06.*nonsaturating"),
        ({"diversity": 0.01}, "the generator has collapsed: .* 1.0% as much.*minibatch_stddev"),
        (
            {"diversity": 0.9, "modes": 3.0, "num_modes": 8.0},
            "collapsed: it draws 3 of the data's 8 modes",
        ),
    ],
)
def test_each_trouble_is_told_once_in_words_and_again_after_it_has_passed(
    stats: dict[str, float], words: str
) -> None:
    watch = Watch()
    assert look(watch, GOOD) == []
    told = look(watch, {**GOOD, **stats}, times=2 * PATIENCE)
    assert len(told) == 1
    assert pytest.importorskip("re").search(words, told[0])
    healthy = {**GOOD, "diversity": 1.0, "modes": 8.0, "num_modes": 8.0}
    assert look(watch, healthy) == []
    assert len(look(watch, {**GOOD, **stats})) == 1


def test_a_generator_that_has_only_begun_is_forgiven() -> None:
    assert Watch().look({"diversity": 0.0}, share_done=0.05) == []


def test_figures_that_are_not_there_say_nothing() -> None:
    watch = Watch()
    assert look(watch, {"loss_d": 1.0}, times=10) == []


def test_diversity_is_relative_to_the_real_images_within_each_class() -> None:
    rng = np.random.default_rng(0)
    real = rng.standard_normal((40, 1, 4, 4)).astype(np.float32)
    labels = np.arange(40) % 2
    assert diversity(real, real, None) == {"diversity": pytest.approx(1)}
    half = diversity(real / 2, real, labels)
    assert half["diversity"] == pytest.approx(0.5)
    one_class = np.where((labels == 0)[:, None, None, None], real[:1], real)
    found = diversity(one_class, real, labels)
    assert found["diversity_worst_class"] == pytest.approx(0, abs=1e-6)
    assert found["diversity"] == pytest.approx(0.5, abs=0.01)
    same = np.where((labels == 0)[:, None, None, None], real[:1], real)  # real images repeated
    assert diversity(real, same, labels)["diversity"] == pytest.approx(1)


def test_a_minimax_run_that_collapses_is_warned_of(tmp_path: Path) -> None:
    """Momentum and the saturating loss: D wins at once, and G stops where it is."""
    prepare("ring8", tmp_path / "ring8")
    adam = {"name": "adam", "learning_rate": 1e-3, "betas": [0.9, 0.999]}
    recipe = {
        "data": {"path": str(tmp_path / "ring8")},
        "model": {
            "name": "mlp",
            "conditional": False,
            "generator": {"z_dim": 2, "z_distribution": "normal", "hidden": [64, 64]},
            "discriminator": {"hidden": [64, 64], "pieces": 0},
        },
        "objective": {"name": "minimax"},
        "optimizer": {"generator": adam, "discriminator": adam},
        "train": {
            "total_kimg": 100,
            "batch_size": 128,
            "log_kimg": 5,
            "sample_kimg": 10,
            "discriminator_steps": 2,
            "device": "cpu",
        },
    }
    told: list[str] = []
    run = train(
        parse_config(recipe, where="x"),
        tmp_path / "run",
        on_progress=lambda progress: told.extend(progress.warnings),
    ).run
    assert any("the generator has collapsed: it draws" in text for text in told)
    records = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    assert [text for record in records for text in record.get("warnings", [])] == told
    value = [r["value_above_optimum"] for r in records if "value_above_optimum" in r]
    assert value[-1] > 0.1, "the game is far from its equilibrium, -log 4"
