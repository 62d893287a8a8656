"""A run that is stopped or asked to save, at any moment, loses nothing."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import tiny_recipe
from test_train import TOML

from gantrain.game.config import Config, parse_config
from gantrain.runs.checkpoint import checkpoint_files, load_checkpoint
from gantrain.training.train import train

STEPS = 50  # until FID is measured for the first time


@pytest.fixture(scope="module")
def measured(shapes: Path) -> Config:
    tree = tiny_recipe(shapes, total_kimg=2, eval_kimg=1.0, eval_images=300)
    return parse_config(tree, where="x")


@pytest.fixture(scope="module")
def whole(measured: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, which nobody stopped."""
    return train(measured, tmp_path_factory.mktemp("runs") / "whole").run


def state(run: Path, name: str = "") -> dict[str, object]:
    """All that a checkpoint holds, but for its config and where its data are."""
    path = run / name if name else checkpoint_files(run)[-1]
    return {k: v for k, v in load_checkpoint(path).items() if k not in ("config", "dataset")}


def equal(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return one == other


def records(run: Path) -> list[dict[str, float]]:
    """Of stats.jsonl, without how fast it was."""
    found = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    for record in found:
        record.pop("images_per_s", None)
    return found


# Asked once after each step, at the beginning of the measurement, and at each piece of it.
@pytest.mark.parametrize("asked", [STEPS, STEPS + 1, STEPS + 3])
def test_who_is_stopped_measures_when_he_goes_on(
    measured: Config, whole: Path, tmp_path: Path, asked: int
) -> None:
    calls = iter(range(10**6))
    run = tmp_path / "run"
    stopped = train(measured, run, should_stop=lambda: next(calls) >= asked - 1)
    assert not stopped.finished
    assert stopped.images_seen == 1000
    assert "measurement" in state(run)["owed"]
    assert "fid" not in records(run)[-1]
    assert not (run / "best.safetensors").exists()
    assert train(measured, run).finished
    assert equal(state(run), state(whole))
    assert equal(state(run, "best.safetensors"), state(whole, "best.safetensors"))
    assert records(run) == records(whole)


def test_a_run_that_was_not_measured_at_its_end_is_not_finished(
    shapes: Path, tmp_path: Path
) -> None:
    recipe = parse_config(
        tiny_recipe(shapes, total_kimg=1, eval_kimg=1.0, eval_images=300), where="x"
    )
    calls, run = iter(range(10**6)), tmp_path / "run"
    stopped = train(recipe, run, should_stop=lambda: next(calls) > STEPS)
    assert (stopped.images_seen, stopped.finished) == (1000, False)
    assert train(recipe, run).finished
    (record,) = records(run)
    assert {"loss_d", "diversity", "fid"} <= record.keys()


def test_who_is_asked_to_save_saves_at_once_and_goes_on(
    measured: Config, whole: Path, tmp_path: Path
) -> None:
    """While it is measured, too: what it saves then owes the measurement."""
    calls, run, saved = iter(range(10**6)), tmp_path / "run", []

    def should_save() -> bool:
        saved.extend(path for path in checkpoint_files(run) if path not in saved)
        return next(calls) == STEPS + 2

    train(measured, run, should_save=should_save)
    assert [int(path.stem) for path in checkpoint_files(run)] == [1000, 2000]
    assert equal(state(run), state(whole))
    assert records(run) == records(whole)
    assert load_checkpoint(saved[0])["owed"] == ["measurement"]


TRAIN = "import sys; from ganexport.cli.gan import main; sys.argv[0] = 'gan'; main()"
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29517")


def begin(shapes: Path, run: Path, *launcher: str) -> subprocess.Popen[str]:
    """`gan train`, which measures FID for most of the time, in a process of its own."""
    folder = run.parent
    (folder / "x.toml").write_text(TOML.format(data=shapes))
    (folder / "gan.py").write_text(TRAIN)
    options = ("--set", "train.eval_kimg=1", "--set", "train.eval_images=5000")
    return subprocess.Popen(
        [sys.executable, *launcher, "gan.py", "train", "x.toml", "-o", run.name, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Who starts the tests in the background, or by nohup, has them ignored.
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (1, 2)],
    )


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `begin`, which nobody stopped."""
    run = tmp_path_factory.mktemp("finished") / "whole"
    begin(shapes, run).communicate()
    return run


def at_a_random_moment(process: subprocess.Popen[str], run: Path) -> None:
    """After the first checkpoint."""
    while not checkpoint_files(run):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(random.uniform(0, 3))


@pytest.mark.slow
@pytest.mark.parametrize("asks", ["SIGTERM", "SIGTERM twice", "SIGHUP"])
def test_at_a_random_moment_a_signal_loses_nothing(
    shapes: Path, finished: Path, tmp_path: Path, asks: str
) -> None:
    run, number = tmp_path / "run", signal.Signals[asks.split()[0]]
    process = begin(shapes, run)
    at_a_random_moment(process, run)
    process.send_signal(number)
    if asks == "SIGTERM twice":
        time.sleep(0.2)
        process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert "Traceback" not in output
    if asks == "SIGHUP":
        assert process.returncode == 0, output
        assert "saved run/checkpoints" in output
    else:
        assert process.returncode == 128 + number, output
        assert "stopping, saving ..." in output
        # The second one may come too late.
        left = "left at once; the last good checkpoint is run/checkpoints" in output
        assert left or "saved run/checkpoints" in output
        begin(shapes, run).communicate()
    assert not list((run / "checkpoints").glob(".*"))
    assert equal(state(run), state(finished))
    fids = [
        [(r["images_seen"], r["fid"]) for r in records(place) if "fid" in r]
        for place in (run, finished)
    ]
    assert fids[0] == fids[1]


@pytest.mark.slow
def test_two_processes_save_when_torchrun_is_stopped(shapes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = begin(shapes, run, *TORCHRUN)
    at_a_random_moment(process, run)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert output.count("stopping, saving ...") == 1, output
    assert "left at once" not in output
    saved = int(checkpoint_files(run)[-1].stem)
    assert f"stopped after {saved:,} images, saved run/checkpoints" in output
    output, _ = begin(shapes, run).communicate()
    assert "16,000 images -> run/checkpoints/000000016000.safetensors" in output
