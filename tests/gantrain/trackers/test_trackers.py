"""What a run has told a tracker is read back from the files that its own package wrote."""

import json
import os
import struct
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import tiny_recipe

from ganinfer.errors import ConfigError, MissingExtra
from gantrain.game.config import parse_config
from gantrain.runs.checkpoint import checkpoint_files
from gantrain.runs.log import read_stats
from gantrain.training.train import train

SHORT = {"log_kimg": 0.1, "sample_kimg": 0.2, "checkpoint_kimg": 0.1}


def recipe(shapes: Path, name: str, total_kimg: float) -> dict:
    return tiny_recipe(shapes, total_kimg=total_kimg, trackers=[name], **SHORT)


def train_apart(recipe: dict, run: Path, home: Path) -> str:
    """What training prints, in a process of its own that the user's settings do not reach."""
    own = {key: v for key, v in os.environ.items() if not key.startswith(("WANDB_", "MLFLOW_"))}
    script = home / "go.py"
    script.write_text(
        "import json, sys; from pathlib import Path\n"
        "from gantrain.game.config import parse_config; from gantrain.training.train import train\n"
        "train(parse_config(json.loads(sys.argv[1]), where='x'), Path(sys.argv[2]))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(recipe), str(run)],
        env=own | {"HOME": str(home), "XDG_CACHE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def trained_twice(shapes: Path, home: Path, name: str) -> Path:
    """A run that was killed before its second checkpoint, and went on; the second process ends it.

    Its first process has told more than the second begins with.
    """
    run = home / "runs" / "mine"
    said = train_apart(recipe(shapes, name, 0.2), run, home)
    checkpoint_files(run)[-1].unlink()
    said += train_apart(recipe(shapes, name, 0.4), run, home)
    assert said == ""
    return run


def test_tensorboard_has_figures_pictures_and_the_recipe(shapes: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = parse_config(recipe(shapes, "tensorboard", 0.4), where="x")
    run = train(config, tmp_path / "run").run
    found = events.EventAccumulator(str(run / "tensorboard")).Reload()
    told = [(event.step, event.value) for event in found.Scalars("loss_d")]
    records = read_stats(run / "stats.jsonl")
    assert told == [(r["images_seen"], pytest.approx(r["loss_d"], 1e-6)) for r in records]
    pictures = found.Images("samples")
    assert [(p.step, p.width, p.height) for p in pictures] == [(200, 152, 502), (400, 152, 502)]
    assert "config/text_summary" in found.Tags()["tensors"]


def wandb_records(path: Path) -> list:
    """The records of a .wandb file: protobuf in blocks of LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, offset, parts, records = path.read_bytes(), 7, b"", []
    while offset + 7 <= len(data):
        left = 32768 - offset % 32768
        if left < 7:  # no head fits into what is left of a block
            offset += left
            continue
        length, kind = struct.unpack_from("<HB", data, offset + 4)
        parts += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # a whole one, or the last part of one
            records.append(Record.FromString(parts))
            parts = b""
    return records


def test_wandb_offline_has_figures_pictures_weights_and_one_id(
    shapes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("wandb", reason="pip install 'ganpipe[wandb]'")
    run = trained_twice(shapes, tmp_path, "wandb")
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    records = [record for path in files for record in wandb_records(path)]
    (number,) = {record.run.run_id for record in records if record.HasField("run")}
    assert len(files) == 2
    assert json.loads((run / "trackers.json").read_text()) == {"wandb": number}
    told: dict[int, dict] = defaultdict(dict)
    for record in records:
        items = record.history.item if record.HasField("history") else []
        row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
        told[row.get("images_seen", 0)] |= row
    for record in read_stats(run / "stats.jsonl"):
        assert told[record["images_seen"]]["loss_d"] == pytest.approx(record["loss_d"])
    assert told[200]["samples._type"] == told[400]["samples._type"] == "image-file"
    config = {u.key: u.value_json for r in records for u in r.run.config.update}
    assert json.loads(config["train"])["batch_size"] == 20
    artifacts = [record.artifact for record in records if record.HasField("artifact")]
    contents = [entry.path for artifact in artifacts for entry in artifact.manifest.contents]
    assert contents == ["000000000200.safetensors", "000000000400.safetensors"]


def test_mlflows_file_store_has_each_figure_once_pictures_and_weights(
    shapes: Path, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow", reason="pip install 'ganpipe[mlflow]'")
    run = trained_twice(shapes, tmp_path, "mlflow")
    number = json.loads((run / "trackers.json").read_text())["mlflow"]
    (place,) = (run.parent / "mlruns").glob(f"*/{number}")
    lines = [line.split() for line in (place / "metrics/loss_d").read_text().splitlines()]
    told = [(int(step), float(value)) for _, value, step in lines]
    assert told == [(r["images_seen"], r["loss_d"]) for r in read_stats(run / "stats.jsonl")]
    assert (place / "params/train.batch_size").read_text() == "20"
    names = {path.name for path in (place / "artifacts/samples").iterdir()}
    assert names == {"000000000200.png", "000000000400.png"}
    last = checkpoint_files(run)[-1]
    assert (place / "artifacts/weights" / last.name).read_bytes() == last.read_bytes()
    assert "status: 3" in (place / "meta.yaml").read_text()  # finished


BROKEN = """
from gantrain import Tracker


class Broken(Tracker):
    def figures(self, images_seen, figures):
        raise OSError(f"nobody listens at {images_seen}")
"""


def test_a_tracker_that_fails_is_told_of_once_and_stops_nothing(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text(BROKEN)
    config = parse_config(recipe(shapes, "broken:Broken", 0.4), where="x")
    told: list[str] = []
    outcome = train(config, Path("run"), on_progress=lambda p: told.extend(p.warnings))
    assert outcome.finished
    (warning,) = [text for text in told if "broken" in text]
    assert warning == (
        "broken:Broken has failed, and the run goes on without it: OSError: nobody listens at 100"
    )
    assert warning in read_stats(Path("run/stats.jsonl"))[0]["warnings"]


def test_an_unknown_tracker_and_one_without_its_package_are_refused_first(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(recipe(shapes, "wanbd", 0.4), where="x.toml")
    with pytest.raises(ConfigError, match=r"x.toml \[train\] trackers: .*did you mean 'wandb'"):
        train(config, tmp_path / "run")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    config = parse_config(recipe(shapes, "wandb", 0.4), where="x.toml")
    with pytest.raises(MissingExtra, match=r"pip install 'ganpipe\[wandb\]'"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
