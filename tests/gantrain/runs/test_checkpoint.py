import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_recipe

from ganexport.pipeline import export_run
from ganinfer.errors import CheckpointError, DataError
from gantrain.evaluation.evaluate import evaluate
from gantrain.game.config import parse_config
from gantrain.report.page import write_report
from gantrain.runs.checkpoint import (
    checkpoint_files,
    load_checkpoint,
    load_generator,
    save_checkpoint,
)
from gantrain.training.train import train

STATE = {
    "images_seen": 20,
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)},
    "list": [1, 2.5, None, "x", torch.tensor([1, 2], dtype=torch.uint8)],
    "empty": {},
}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    loaded = load_checkpoint(save_checkpoint(tmp_path, STATE, keep=1))
    assert torch.equal(loaded["weights"]["a"], STATE["weights"]["a"])
    assert loaded["weights"]["b"].shape == ()
    assert loaded["list"][:4] == [1, 2.5, None, "x"]
    assert loaded["list"][4].dtype == torch.uint8
    assert loaded["empty"] == {}


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    for images_seen in (5, 100, 20, 3000):
        save_checkpoint(tmp_path, {**STATE, "images_seen": images_seen}, keep=2)
    assert [int(path.stem) for path in checkpoint_files(tmp_path)] == [100, 3000]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch) -> None:
    save_checkpoint(tmp_path, STATE, keep=1)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, {**STATE, "images_seen": 40}, keep=1)
    assert os.listdir(tmp_path / "checkpoints") == ["000000000020.safetensors"]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08" + b"\0" * 7 + b'{"a":1} '])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    path = save_checkpoint(tmp_path, STATE, keep=1)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="000000000020"):
        load_checkpoint(path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "evil.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="evil"):
        load_generator(path)


def test_the_shipped_generator_is_the_average_in_eval_mode(run: Path) -> None:
    trained = load_generator(run)
    state = load_checkpoint(checkpoint_files(run)[-1])
    for name, value in trained.network.state_dict().items():
        assert torch.equal(value, state["ema"][name])
    assert any(
        not torch.equal(state["ema"][name], state["generator"][name]) for name in state["ema"]
    )
    assert not trained.network.training
    assert trained.classes == ["0", "1", "2"]


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        load_generator(tmp_path)


def test_a_run_that_was_moved_with_its_data_finds_them(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "before" / "data")
    recipe = tiny_recipe(tmp_path / "before" / "data", total_kimg=0.2)
    train(parse_config(recipe, where="x"), tmp_path / "before" / "runs" / "x")
    (tmp_path / "before").rename(tmp_path / "after")
    run = tmp_path / "after" / "runs" / "x"
    for place in (run, checkpoint_files(run)[-1]):
        assert load_generator(place).dataset_path.samefile(tmp_path / "after" / "data")
    shutil.rmtree(tmp_path / "after" / "data")
    assert load_generator(run).dataset_path == tmp_path / "before" / "data"
    for use in (
        lambda: evaluate(run, None, num_images=50),
        lambda: write_report(run, tmp_path / "x.html"),
        lambda: export_run(run, tmp_path / "x.gan"),
    ):
        with pytest.raises(DataError, match="before/data: the data .* not there; .* --data"):
            use()
