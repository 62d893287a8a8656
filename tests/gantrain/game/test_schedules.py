import json
from pathlib import Path

import pytest
from conftest import tiny_recipe

from gantrain.game import schedules
from gantrain.game.config import parse_config
from gantrain.training.train import train


def test_constant_is_one_after_the_warmup() -> None:
    assert schedules.constant(0, 1000) == 1
    assert schedules.constant(499, 10_000, warmup_kimg=1) == pytest.approx(0.5)
    assert schedules.constant(5000, 10_000, warmup_kimg=1) == 1


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_decays_start_at_one_and_end_at_final(name: str) -> None:
    schedule = getattr(schedules, name)
    assert schedule(0, 10_000) == 1
    assert schedule(10_000, 10_000) == pytest.approx(0)
    assert schedule(10_000, 10_000, final=0.1) == pytest.approx(0.1)
    assert schedule(5_000, 10_000, final=0.2) == pytest.approx(0.6)
    assert schedule(2_000, 10_000, start_kimg=2) == 1
    assert schedule(6_000, 10_000, start_kimg=2, final=0.5) == pytest.approx(0.75)
    assert schedule(20_000, 10_000) == pytest.approx(0), "a prolonged run does not go negative"


def test_a_run_that_goes_on_does_not_begin_its_schedule_again(shapes: Path, tmp_path: Path) -> None:
    from gantrain.runs.checkpoint import checkpoint_files, load_checkpoint

    tree = tiny_recipe(shapes, total_kimg=1)
    tree["schedule"] = {"name": "linear"}
    rates = []
    for stop_after in (25, 100):
        steps = iter([False] * stop_after + [True] * 100)
        config = parse_config(tree, where="x")
        train(config, tmp_path / "run", should_stop=lambda steps=steps: next(steps))
        state = load_checkpoint(checkpoint_files(tmp_path / "run")[-1])
        rates.append(state["generator_optimizer"]["param_groups"][0]["lr"])
    assert rates == pytest.approx([0.5e-3, 0.02e-3])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["schedule"] == {
        "name": "linear",
        "start_kimg": 0.0,
        "final": 0.0,
        "warmup_kimg": 0.0,
    }
