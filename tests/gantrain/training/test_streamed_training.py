"""Training whose images stay in their shards."""

import json
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GAN, run_python, tiny_recipe
from drawn_shards import make_shards, png, write_tar
from test_train import TOML, assert_identical

from ganinfer import Sampler
from ganinfer.shards import write_shards
from gantrain.data.dataset import Dataset, RealBatches
from gantrain.data.indexing import index_shards
from gantrain.data.prepare import prepare
from gantrain.data.windows import Windows
from gantrain.evaluation.evaluate import evaluate
from gantrain.game.config import parse_config
from gantrain.runs.checkpoint import checkpoint_files
from gantrain.training.train import train

DATA = {"resolution": 16, "mirror": True, "window_mb": 0.02}


class InThatOrder(RealBatches):
    """The batches of a dataset in memory, in the order of windows."""

    windows: Windows

    def _next_indices(self) -> tuple[torch.Tensor, torch.Tensor]:
        rows, flipped = [], []
        for position in range(self.position, self.position + self._batch_size):
            number, place = self.windows.find(position)
            window = self.windows.window(number)
            rows.append(int(window.rows[place]))
            flipped.append(bool(window.flipped[place]))
        self.position += self._batch_size
        return torch.tensor(rows), torch.tensor(flipped)


def test_streamed_training_equals_training_in_memory_to_the_bit(
    tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_shards(tmp_path / "shards", 150, each=60)
    index_shards(source, tmp_path / "index", resolution=16)
    prepare(str(source), tmp_path / "copied", resolution=16)
    recipe = tiny_recipe(tmp_path / "index", total_kimg=0.4, sample_kimg=10)
    recipe["data"] |= DATA
    config = parse_config(recipe, where="x.toml")
    train(config, tmp_path / "streamed")

    def in_memory(dataset: Dataset, *args: int, window_mb: float, **options) -> RealBatches:
        batches = InThatOrder(Dataset(tmp_path / "copied"), *args, **options)
        batches.windows = Windows(dataset.images, seed=options["seed"], window_mb=window_mb)
        return batches

    monkeypatch.setattr("gantrain.training.train.real_batches", in_memory)
    train(config, tmp_path / "in memory")
    assert_identical(tmp_path / "streamed", tmp_path / "in memory")


@pytest.mark.slow
def test_killed_with_9_a_streamed_run_ends_bit_identical(tmp_path: Path) -> None:
    source = make_shards(tmp_path / "shards", 700, each=100)
    more = "resolution = 16\nmirror = true\nwindow_mb = 0.1\n[model]"
    text = TOML.format(data=source).replace("[model]", more, 1)
    (tmp_path / "x.toml").write_text(text.replace("total_kimg = 16", "total_kimg = 8"))
    command = [*GAN, "train", str(tmp_path / "x.toml"), "-o"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoint_files(tmp_path / "killed") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3000 <= int(checkpoint_files(tmp_path / "killed")[-1].stem) < 8000
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    assert_identical(tmp_path / "whole", tmp_path / "killed")


PEAK = """
import json, resource, sys
from pathlib import Path
from gantrain.game.config import parse_config
from gantrain.training.train import train
train(parse_config(json.loads(sys.argv[1]), where="x"), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_ten_times_the_data_take_the_same_memory(tmp_path: Path) -> None:
    """One epoch of training over 7 MB of pixels, and over 74."""
    peaks = []
    for shards in (2, 20):
        folder = tmp_path / str(shards)
        folder.mkdir()
        for number in range(shards):
            noise = np.random.default_rng(number).integers(0, 256, (300, 64, 64, 3), np.uint8)
            write_tar(folder / f"{number:02}.tar", [png(image) for image in noise], None)
        recipe = tiny_recipe(folder, total_kimg=0.3 * shards, batch_size=100, sample_kimg=50)
        recipe["data"]["window_mb"] = 4
        sizes = {"generator": {"hidden": [4]}, "discriminator": {"hidden": [4]}}
        recipe |= {"model": {"name": "mlp", **sizes}, "regularizers": []}
        peaks.append(int(run_python(PEAK, json.dumps(recipe), folder / "run")[-1]))
    assert peaks[1] - peaks[0] < 30, peaks


SHOWN = """
import json, sys
from pathlib import Path
import torch
from gantrain.data.opening import open_dataset
from gantrain.data.windows import StreamedBatches
from gantrain.distributed import process_group, rank
device, shown = torch.device("cpu"), []
with process_group(device):
    for folder in sys.argv[2:]:
        dataset = open_dataset(Path(folder))
        batches = StreamedBatches(dataset, 16, seed=0, device=device, window_mb=0.001)
        pixels = [batches.next()[0][:, 0, 0, 0] for _ in range(6)]
        shown.append([((p + 1) * 127.5).round().int().tolist() for p in pixels])
    Path(sys.argv[1], f"{rank()}.json").write_text(json.dumps(shown))
"""


def test_two_processes_see_images_of_their_own_and_together_all(tmp_path: Path) -> None:
    """Two epochs of 48 images, in three shards and in one, which are fewer than processes."""
    folders = [tmp_path / "three", tmp_path / "one"]
    for folder, num_shards in zip(folders, (3, 1), strict=True):
        folder.mkdir()
        for part in np.array_split(np.arange(48, dtype=np.uint8), num_shards):
            pictures = [png(np.full((8, 8), number)) for number in part]
            write_tar(folder / f"{part[0]:02}.tar", pictures, None)
    (tmp_path / "go.py").write_text(SHOWN)
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29521")
    done = subprocess.run(
        [sys.executable, *launcher, tmp_path / "go.py", tmp_path, *folders],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    processes = [json.loads((tmp_path / f"{n}.json").read_text()) for n in (0, 1)]
    for first, second in zip(*processes, strict=True):
        for epoch in (slice(0, 3), slice(3, 6)):
            mine, other = (list(chain(*seen[epoch])) for seen in (first, second))
            assert len(mine) == len(other) == 24
            assert sorted(mine + other) == list(range(48))
        assert first[:3] != first[3:]


@pytest.mark.slow  # a classifier is trained on each
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_what_was_sampled_is_measured_prepared_and_trained_on(
    bundle: Path, shapes: Path, tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "shards"
    with Sampler(bundle) as sampler:
        write_shards(sampler, 120, source, format=kind, shard_size=50)
        images, classes = sampler.sample(120), sampler.classes
    assert evaluate(source, shapes, metrics=["fid"]).scores["fid"].value > 0
    of_themselves = evaluate(source, source, metrics=["spectral_distance"])
    assert of_themselves.values["spectral_distance"] == pytest.approx(0, abs=1e-6)
    prepare(str(source), tmp_path / "copied")
    assert np.array_equal(Dataset(tmp_path / "copied").images, images)
    recipe = tiny_recipe(source, total_kimg=0.04, sample_kimg=10, eval_kimg=0.04, eval_images=40)
    outcome = train(parse_config(recipe, where="x.toml"), tmp_path / "run")
    assert (outcome.images_seen, outcome.finished) == (40, True)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["path"] == str(source)
    assert len(classes) == 3
