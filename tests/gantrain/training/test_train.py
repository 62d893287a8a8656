import fcntl
import json
import os
import shutil
import signal
import subprocess
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GAN, draw_shapes, tiny_recipe
from PIL import Image

from ganinfer.errors import CheckpointError, ConfigError, TrainingError
from gantrain.data.prepare import prepare
from gantrain.evaluation.evaluate import evaluate
from gantrain.game.config import parse_config
from gantrain.runs.checkpoint import (
    checkpoint_files,
    load_checkpoint,
    load_generator,
    save_checkpoint,
)
from gantrain.training.train import train

TOML = """
[data]
path = "{data}"
[model]
name = "dcgan"
[model.generator]
z_dim = 16
width = 8
[model.discriminator]
width = 8
[objective]
name = "hinge"
[optimizer.generator]
name = "adam"
learning_rate = 1e-3
[optimizer.discriminator]
name = "adam"
learning_rate = 1e-3
[train]
total_kimg = 16
batch_size = 20
device = "cpu"
checkpoint_kimg = 3.0
sample_kimg = 16.0
log_kimg = 1.0
"""


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = load_checkpoint(checkpoint_files(run)[-1])
    parts = ("generator", "discriminator", "ema")
    tensors = {f"{part}.{k}": v for part in parts for k, v in state[part].items()}
    moments = state["generator_optimizer"]["state"]
    return tensors | {f"moments.{n}.{k}": v for n, m in moments.items() for k, v in m.items()}


def assert_identical(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def stats(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_behind(run: Path) -> None:
    assert [int(p.stem) for p in checkpoint_files(run)] == [2000, 4000]
    records = stats(run)
    assert [record["images_seen"] for record in records] == [1000, 2000, 3000, 4000]
    assert {"loss_d", "loss_g", "real_logits", "fake_logits", "images_per_s"} <= records[0].keys()
    names = {path.name for path in (run / "samples").iterdir()}
    assert names == {"real.png", "000000002000.png", "000000004000.png"}
    with Image.open(run / "samples" / "000000004000.png") as picture:
        assert picture.size == (3 * 50 + 2, 10 * 50 + 2)
    assert list((run / "tensorboard").glob("events*"))


def test_training_improves_the_generator(shapes: Path, run: Path) -> None:
    """Generated discs are red, bars green and squares blue, as the real ones are."""
    from gantrain.runs.checkpoint import load_generator
    from gantrain.runs.samples import generate

    labels = np.arange(90) % 3
    images = generate(load_generator(run).network, range(90), labels).astype(float)
    strongest = images.max(axis=(1, 2)).argmax(axis=1)
    assert np.mean(strongest == labels) > 0.9


def test_the_same_seed_gives_the_same_weights(recipe, run: Path, tmp_path: Path) -> None:
    train(recipe, tmp_path / "again")
    assert_identical(run, tmp_path / "again")


def test_a_stopped_run_goes_on_to_the_same_weights(recipe, run: Path, tmp_path: Path) -> None:
    steps = iter([False] * 70 + [True])
    outcome = train(recipe, tmp_path / "x", should_stop=lambda: next(steps))
    assert not outcome.finished
    assert outcome.images_seen == 1420
    outcome = train(recipe, tmp_path / "x")
    assert outcome.finished
    assert_identical(run, tmp_path / "x")


@pytest.mark.slow
def test_killed_with_9_at_a_random_point_the_run_ends_bit_identical(
    shapes: Path, run: Path, tmp_path: Path
) -> None:
    """One that began with another's weights, so that these are not looked at again, either."""
    (tmp_path / "x.toml").write_text(TOML.format(data=shapes))
    shutil.copytree(run, tmp_path / "ancestor")
    command = [*GAN, "train", str(tmp_path / "x.toml"), "--from", str(tmp_path / "ancestor"), "-o"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoint_files(tmp_path / "killed") and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(np.random.default_rng().uniform(0, 1))
    process.send_signal(signal.SIGKILL)
    process.wait()
    shutil.rmtree(tmp_path / "ancestor")
    assert len(checkpoint_files(tmp_path / "killed")) >= 1
    reached = int(checkpoint_files(tmp_path / "killed")[-1].stem)
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    assert reached < 16_000, "killed too late to show anything"
    assert_identical(tmp_path / "whole", tmp_path / "killed")
    seen = [record["images_seen"] for record in stats(tmp_path / "killed")]
    assert (
        seen == sorted(set(seen)) == [record["images_seen"] for record in stats(tmp_path / "whole")]
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits(shapes: Path, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "x.toml").write_text(TOML.format(data=shapes))
    run = tmp_path / "run"
    process = subprocess.Popen(
        [
            *GAN,
            "train",
            str(tmp_path / "x.toml"),
            "-o",
            str(run),
            "--set",
            "train.total_kimg=100000",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for_figures(run)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "the same command goes on from there" in output
    assert "Traceback" not in output
    last = load_checkpoint(checkpoint_files(run)[-1])
    assert last["images_seen"] == stats(run)[-1]["images_seen"]


def wait_for_figures(run: Path) -> None:
    deadline = time.monotonic() + 120
    while not (run / "stats.jsonl").exists() or not (run / "stats.jsonl").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_without_its_terminal_a_run_goes_on(shapes: Path, tmp_path: Path) -> None:
    """Its last process group gets SIGHUP, and whatever is written to it fails."""
    (tmp_path / "x.toml").write_text(TOML.format(data=shapes))
    run = tmp_path / "run"
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*GAN, "train", tmp_path / "x.toml", "-o", run],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    wait_for_figures(run)
    os.close(ours)
    assert process.wait(timeout=120) == 0
    assert load_checkpoint(checkpoint_files(run)[-1])["images_seen"] == 16_000


@pytest.mark.slow
def test_under_nohup_a_run_does_not_hear_it(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(TOML.format(data=shapes))
    process = subprocess.Popen(
        [*GAN, "train", tmp_path / "x.toml", "-o", tmp_path / "run"],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_for_figures(tmp_path / "run")
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 0
    assert load_checkpoint(checkpoint_files(tmp_path / "run")[-1])["images_seen"] == 16_000


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(
    shapes: Path, tmp_path: Path
) -> None:
    recipe = parse_config(
        tiny_recipe(shapes, checkpoint_kimg=1.0, log_kimg=0.5, total_kimg=2), where="x"
    )
    train(recipe, tmp_path / "run")
    good = checkpoint_files(tmp_path / "run")
    tree = tiny_recipe(shapes, checkpoint_kimg=1.0, log_kimg=0.5, total_kimg=50)

    import gantrain.objectives.hinge as hinge

    class Broken(hinge.Objective):
        def generator_loss(self, fake_logits: torch.Tensor) -> torch.Tensor:
            return super().generator_loss(fake_logits) * float("nan")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hinge, "Objective", Broken)
        with pytest.raises(
            TrainingError, match=r"loss_g is nan.*; the last good checkpoint is .*2000"
        ):
            train(parse_config(tree, where="x"), tmp_path / "run")
    assert checkpoint_files(tmp_path / "run") == good


def test_weights_that_are_not_finite_are_never_saved(shapes: Path, tmp_path: Path) -> None:
    """A step may ruin the weights after the last loss that was looked at."""
    import gantrain.training.ema

    class Ruined(gantrain.training.ema.Ema):
        def update(self, network, *, batch_size: int, images_seen: int) -> None:
            super().update(network, batch_size=batch_size, images_seen=images_seen)
            if images_seen == 1000:
                next(self.network.parameters()).fill_(float("nan"))

    recipe = parse_config(tiny_recipe(shapes, checkpoint_kimg=0.5, log_kimg=5), where="x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gantrain.training.train.Ema", Ruined)
        with pytest.raises(TrainingError, match="a weight is nan"):
            train(recipe, tmp_path / "run")
    assert [int(path.stem) for path in checkpoint_files(tmp_path / "run")] == [500]


def test_a_run_without_checkpoints_may_begin_again_with_another_config(shapes, tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    recipe = parse_config(tiny_recipe(shapes, total_kimg=0.2), where="x")
    assert train(recipe, tmp_path / "run").finished


def test_a_set_smaller_than_a_batch_is_trained_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "five.npz", images=draw_shapes(5, seed=0)[0])
    data = prepare(str(tmp_path / "five.npz"), tmp_path / "data").path
    recipe = parse_config(tiny_recipe(data, total_kimg=0.04), where="x")
    assert train(recipe, tmp_path / "run").finished


def test_a_run_of_another_device_goes_on(recipe, shapes: Path, tmp_path: Path) -> None:
    tree = tiny_recipe(shapes, total_kimg=0.2)
    run = train(parse_config(tree, where="x"), tmp_path / "run").run
    state = load_checkpoint(checkpoint_files(run)[-1])
    state |= {"rng": torch.zeros(16, dtype=torch.uint8), "rng_device": "cuda"}
    save_checkpoint(run, state, keep=1)
    tree["train"]["total_kimg"] = 0.4
    assert train(parse_config(tree, where="x"), run).finished


def test_two_processes_cannot_train_in_one_folder(recipe, run: Path) -> None:
    from ganinfer.errors import GanError
    from ganinfer.files import only_writer

    with only_writer(run), pytest.raises(GanError, match="another process is writing there"):
        train(recipe, run)
    assert train(recipe, run).finished


def test_another_config_in_the_same_folder_is_refused(recipe, shapes: Path, run: Path) -> None:
    other = parse_config(tiny_recipe(shapes, seed=5), where="x")
    with pytest.raises(CheckpointError, match=r"train.seed: it has 0, this config 5"):
        train(other, run)
    with pytest.raises(ConfigError, match=r"--allow train.eval_kimg: it may change in any run"):
        train(other, run, allow=["train.eval_kimg"])
    with pytest.raises(
        ConfigError, match=r"--allow train.seed: no run can go on with another; .* it takes"
    ):
        train(other, run, allow=["train.seed"])


def test_a_run_goes_on_by_other_rules_if_that_is_allowed(shapes: Path, tmp_path: Path) -> None:
    train(parse_config(tiny_recipe(shapes, total_kimg=0.4), where="x"), tmp_path / "run")
    tree = tiny_recipe(shapes, total_kimg=0.8, batch_size=40)
    tree["schedule"] = {"name": "cosine", "final": 0.1}
    other = parse_config(tree, where="x")
    with pytest.raises(
        CheckpointError,
        match=r"schedule.final: it has None, this config 0.1; .* add --allow schedule.final"
        r" .*--allow train.batch_size, or choose",
    ):
        train(other, tmp_path / "run", allow=["schedule.name"])
    assert train(other, tmp_path / "run", allow=["schedule", "train"]).images_seen == 800
    train(other, tmp_path / "run")  # it is this run's config now
    (event,) = json.loads((tmp_path / "run/history.json").read_text())
    assert event["images_seen"] == 400
    assert "train.batch_size: it has 20, this config 40" in event["allowed"]


def test_a_run_of_a_version_that_knew_fewer_keys_goes_on(shapes: Path, tmp_path: Path) -> None:
    run = train(parse_config(tiny_recipe(shapes, total_kimg=0.2), where="x"), tmp_path / "run").run
    old = json.loads((run / "config.json").read_text())
    state = load_checkpoint(checkpoint_files(run)[-1])
    for tree in (old, state["config"]):
        del tree["start"], tree["train"]["freeze"]
    del state["ancestry"]
    (run / "config.json").write_text(json.dumps(old))
    save_checkpoint(run, state, keep=1)
    longer = parse_config(tiny_recipe(shapes, total_kimg=0.4), where="x")
    assert train(longer, run).images_seen == 400


def test_a_finished_run_may_be_prolonged(shapes: Path, tmp_path: Path) -> None:
    for kimg in (1, 2):
        recipe = parse_config(tiny_recipe(shapes, total_kimg=kimg), where="x")
        assert train(recipe, tmp_path / "run").images_seen == 1000 * kimg
    whole = parse_config(tiny_recipe(shapes, total_kimg=2), where="x")
    train(whole, tmp_path / "whole")
    assert_identical(tmp_path / "run", tmp_path / "whole")


def test_a_missing_gpu_is_an_error(shapes: Path, tmp_path: Path) -> None:
    if torch.cuda.device_count() > 7:
        pytest.skip("cuda:7 is there")
    recipe = parse_config(tiny_recipe(shapes, device="cuda:7"), where="x.toml")
    with pytest.raises(ConfigError, match=r"x.toml \[train\] device: 'cuda:7' is not there"):
        train(recipe, tmp_path / "run")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("option", [{"precision": "bf16"}, {"channels_last": True}])
def test_switches_train_too(shapes: Path, tmp_path: Path, option: dict) -> None:
    recipe = parse_config(tiny_recipe(shapes, total_kimg=0.2, **option), where="x")
    assert train(recipe, tmp_path / "run").finished


def test_an_unlabelled_dataset_trains_an_unconditional_gan(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images)
    prepare(str(tmp_path / "x.npz"), tmp_path / "data")
    tree = tiny_recipe(tmp_path / "data", total_kimg=0.2)
    tree["model"]["generator"]["z_distribution"] = "uniform"
    train(parse_config(tree, where="x"), tmp_path / "run")
    assert (tmp_path / "run" / "samples" / "000000000200.png").exists()


def test_pictures_leave_their_labels_out_wherever_their_run_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for n in range(40):
        folder = tmp_path / "photos" / f"upload-{n % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(n).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    tree = tiny_recipe(tmp_path / "photos", total_kimg=0.1)
    tree["data"]["labels"] = False
    train(parse_config(tree, where="x"), tmp_path / "run")
    assert load_generator(tmp_path / "run").classes == []
    found = evaluate(tmp_path / "run", metrics=["spectral_distance"], num_images=20)
    assert found.dataset == str(tmp_path / "photos")
    prepare(str(tmp_path / "photos"), tmp_path / "data")
    tree["data"]["path"] = str(tmp_path / "data")
    with pytest.raises(ConfigError, match="labels: .* prepared with its labels.*--no-labels"):
        train(parse_config(tree, where="x"), tmp_path / "other")
    tree["data"] |= {"labels": True, "resolution": 16}
    with pytest.raises(ConfigError, match="resolution: 16x16, and .* prepared at 8x8; ask for"):
        train(parse_config(tree, where="x"), tmp_path / "other")


def test_fid_is_measured_as_it_goes_and_the_best_is_kept(shapes: Path, tmp_path: Path) -> None:
    config = parse_config(tiny_recipe(shapes, eval_kimg=1.0, eval_images=300), where="x")
    run = train(config, tmp_path / "run").run
    fids = {record["images_seen"]: record["fid"] for record in stats(run) if "fid" in record}
    assert list(fids) == [1000, 2000, 3000, 4000]
    best = load_checkpoint(run / "best.safetensors")
    assert fids[best["images_seen"]] == best["best_fid"] == min(fids.values())
    assert load_generator(run / "best.safetensors").images_seen == best["images_seen"]
    assert load_checkpoint(checkpoint_files(run)[-1])["best_fid"] == min(fids.values())


def test_a_record_shows_how_the_game_stands(shapes: Path, tmp_path: Path) -> None:
    tree = tiny_recipe(shapes, total_kimg=1, log_kimg=0.5, sample_kimg=1)
    tree["objective"] = {"name": "nonsaturating"}
    tree["regularizers"] = [{"name": "ada"}, {"name": "lecam"}]
    record = stats(train(parse_config(tree, where="x"), tmp_path / "run").run)[-1]
    value = record["value"]
    assert record["value_above_optimum"] == pytest.approx(value + np.log(4))
    assert record["loss_d"] >= -value  # LeCam's penalty comes on top
    assert record["logit_gap"] == pytest.approx(record["real_logits"] - record["fake_logits"], 1e-4)
    assert {"d_real", "d_fake", "gradient_norm_d", "gradient_norm_g"} <= record.keys()
    assert {"augment_p", "anchor_real", "diversity", "diversity_worst_class"} <= record.keys()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")
def test_compiled_losses_are_the_same(shapes: Path, tmp_path: Path) -> None:
    runs = {}
    for compiled in ("off", "on"):
        config = parse_config(
            {
                **tiny_recipe(shapes, total_kimg=0.06, sample_kimg=10, compile=compiled),
                "model": {"name": "mlp", "generator": {"hidden": [16]}},
            },
            where="x",
        )
        runs[compiled] = weights(train(config, tmp_path / compiled).run)
    for key, value in runs["off"].items():
        if key.startswith(("generator", "discriminator")):
            assert torch.allclose(value.float(), runs["on"][key].float(), atol=1e-3), key


def test_standing_statistics_go_into_the_averaged_network(shapes: Path, tmp_path: Path) -> None:
    config = parse_config(tiny_recipe(shapes, total_kimg=0.4, standing_batches=8), where="x")
    state = load_checkpoint(checkpoint_files(train(config, tmp_path / "run").run)[-1])
    key = "norms.0.norm.running_var"
    assert int(state["ema"]["norms.0.norm.num_batches_tracked"]) == 8
    assert not torch.allclose(state["ema"][key], state["generator"][key], rtol=1e-3)


def test_compiling_without_a_compiler_is_refused(shapes: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("gantrain.training.train.shutil.which", lambda _: None)
    config = parse_config(tiny_recipe(shapes, compile="on"), where="x")
    with pytest.raises(ConfigError, match=r"it needs a C\+\+ compiler"):
        train(config, tmp_path / "run")


def test_channels_last_resumes_to_the_same_weights(shapes: Path, tmp_path: Path) -> None:
    """A fused optimizer takes the moments as they lie in memory."""
    config = parse_config(tiny_recipe(shapes, total_kimg=1, channels_last=True), where="x")
    train(config, tmp_path / "whole")
    steps = iter([False] * 20 + [True])
    train(config, tmp_path / "parts", should_stop=lambda: next(steps))
    train(config, tmp_path / "parts")
    assert_identical(tmp_path / "whole", tmp_path / "parts")


def test_a_batch_of_one_under_batch_norm_is_refused(shapes: Path, tmp_path: Path) -> None:
    config = parse_config(tiny_recipe(shapes, batch_size=1), where="x")
    with pytest.raises(ConfigError, match="one image at a time, and norms.0.norm is a batch norm"):
        train(config, tmp_path / "run")
