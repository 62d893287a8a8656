import json
import shutil
from pathlib import Path

import pytest
from conftest import tiny_recipe

from ganinfer.errors import RunNotFound
from ganinfer.files import only_writer
from gantrain.game.config import parse_config
from gantrain.runs.listing import list_runs
from gantrain.training.train import train


def test_runs_are_listed_with_their_state_their_figures_and_their_ancestor(
    gan, shapes: Path, run: Path, tmp_path: Path
) -> None:
    tree = tiny_recipe(shapes, total_kimg=0.4) | {"start": {"path": str(run)}}
    child = train(parse_config(tree, where="x"), tmp_path / "runs/deep/child").run
    record = json.loads((child / "stats.jsonl").read_text().splitlines()[-1])
    fids = [record | {"fid": 30.0, "images_seen": 200}, record | {"fid": 45.5}]
    (child / "stats.jsonl").write_text("".join(json.dumps(r) + "\n" for r in fids))
    shutil.copytree(run, tmp_path / "runs/parent")
    (tmp_path / "runs/parent/checkpoints/000000004000.safetensors").unlink()
    (tmp_path / "runs/parent/stats.jsonl").unlink()
    (tmp_path / "runs/strange").mkdir()
    (tmp_path / "runs/strange/config.json").write_text("[1]")
    with only_writer(tmp_path / "runs/parent"):
        assert [listed.state for listed in list_runs(tmp_path / "runs")] == ["finished", "training"]
    done = gan("runs", "runs", "--json", "runs.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "runs.json").read_text())
    assert (first["path"], first["state"]) == ("runs/deep/child", "finished")
    assert (first["best_fid"], first["fid"], first["images_seen"]) == (30.0, 45.5, 400)
    assert first["begins_with"].endswith("000000004000.safetensors at 4 kimg")
    assert (second["path"], second["state"]) == ("runs/parent", "stopped")
    assert (second["images_seen"], second["total_images"]) == (2000, 4000)
    assert second["fid"] is second["begins_with"] is None
    for word in ("runs/deep/child", "dcgan", "0.4/0.4", "30.00", "45.50", "2/4", "stopped"):
        assert word in done.stdout


def test_a_run_that_was_prolonged_and_stopped_is_not_finished(shapes: Path, tmp_path: Path) -> None:
    for total, stopped in ((0.2, False), (0.8, True)):
        config = parse_config(tiny_recipe(shapes, total_kimg=total), where="x")
        train(config, tmp_path / "run", should_stop=lambda at_once=stopped: at_once)
    (listed,) = list_runs(tmp_path)
    assert (listed.state, listed.total_images) == ("stopped", 800)
    assert 200 < listed.images_seen < 800


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="nowhere: no folder there"):
        list_runs(tmp_path / "nowhere")
    assert list_runs(tmp_path) == []
