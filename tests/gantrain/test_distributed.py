"""Several processes on one machine, over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_recipe

from ganinfer.errors import ConfigError
from gantrain.game.config import load_config, parse_config
from gantrain.runs.checkpoint import checkpoint_files, load_checkpoint
from gantrain.training.train import train

# What makes a result depend on the whole batch: batch norm, random augmentation, penalties with
# random numbers, means over the batch, and state that follows the logits.
REGULARIZERS = [
    {"name": "instance_noise", "sigma": 0.1},
    {"name": "diffaugment"},
    {"name": "gradient_penalty"},
    {"name": "feature_matching", "generator_loss": "kept"},
    {"name": "lecam"},
]

SCRIPT = """
import json, sys
from pathlib import Path
from gantrain.game.config import load_config, parse_config
from gantrain.training.train import train
train(parse_config(json.loads(sys.argv[1]), where="x.toml"), Path(sys.argv[2]))
"""


def tree(shapes: Path, total_kimg: float = 0.4) -> dict:
    """Twenty steps of 20 images; SGD, because Adam turns rounding into steps of full size."""
    recipe = tiny_recipe(
        shapes, total_kimg=total_kimg, log_kimg=0.1, checkpoint_kimg=0.2, sample_kimg=10
    )
    sgd = {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.5}
    recipe["optimizer"] = {"generator": sgd, "discriminator": sgd}
    recipe["objective"] = {"name": "adaptive_hinge"}
    recipe["regularizers"] = REGULARIZERS
    recipe["data"]["mirror"] = True
    return recipe


def torchrun(recipe: dict, run: Path, processes: int, port: int) -> subprocess.CompletedProcess:
    script = run.parent / "go.py"
    script.write_text(SCRIPT)
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
            *("--master-port", str(port), str(script), json.dumps(recipe), str(run)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_two_processes_give_the_weights_of_one(shapes: Path, tmp_path: Path) -> None:
    finished = torchrun(tree(shapes), tmp_path / "two", 2, port=29511)
    assert finished.returncode == 0, finished.stderr
    train(parse_config(tree(shapes), where="x.toml"), tmp_path / "one")
    one, two = (load_checkpoint(checkpoint_files(tmp_path / n)[-1]) for n in ("one", "two"))
    assert one["images_seen"] == two["images_seen"] == 400
    for part in ("generator", "discriminator", "ema"):
        for key, value in one[part].items():
            assert torch.allclose(value.float(), two[part][key].float(), atol=1e-5), (part, key)
    margin = one["hooks"]["objective"]["margin"]
    assert torch.allclose(margin, two["hooks"]["objective"]["margin"])
    assert margin != 1

    # The run of two goes on as one, and ends where the run of one would have.
    longer = parse_config(tree(shapes, 0.6), where="x.toml")
    for run in ("one", "two"):
        assert train(longer, tmp_path / run).images_seen == 600
    one, two = (load_checkpoint(checkpoint_files(tmp_path / n)[-1]) for n in ("one", "two"))
    for key, value in one["generator"].items():
        assert torch.allclose(value.float(), two["generator"][key].float(), atol=3e-5), key


def test_a_batch_that_cannot_be_shared_is_refused(shapes: Path, tmp_path: Path) -> None:
    finished = torchrun(tree(shapes), tmp_path / "run", 3, port=29512)
    assert finished.returncode != 0
    assert "batch_size: found 20; expected a multiple of the 3 processes" in finished.stderr
    assert not checkpoint_files(tmp_path / "run")


def test_one_process_measures_while_the_others_go_on(tmp_path: Path) -> None:
    """In an empty folder, whose embedded dataset one of them prepares for all."""
    recipe = load_config(Path("mlp-ring8")).as_dict()
    recipe["data"]["path"] = str(tmp_path / "ring8")
    recipe["train"] |= {"total_kimg": 2, "batch_size": 100, "eval_kimg": 1, "eval_images": 200}
    finished = torchrun(recipe, tmp_path / "run", 2, port=29513)
    assert finished.returncode == 0, finished.stderr
    records = [json.loads(line) for line in (tmp_path / "run/stats.jsonl").read_text().splitlines()]
    assert [r["images_seen"] for r in records if "fid" in r] == [1000, 2000]
    assert "modes" in records[-1]


def test_microbatches_give_the_gradient_of_the_whole_batch(shapes: Path, tmp_path: Path) -> None:
    """Without batch norm and random numbers, which are a microbatch's own."""
    results = []
    for size in (20, 5):
        recipe = tiny_recipe(shapes, total_kimg=0.2, sample_kimg=10, microbatch_size=size)
        sgd = {"name": "sgd", "learning_rate": 1e-4}
        recipe["optimizer"] = {"generator": sgd, "discriminator": sgd}
        recipe["model"] = {"name": "mlp", "generator": {"hidden": [16]}}
        recipe["regularizers"] = [{"name": "r1"}]
        run = train(parse_config(recipe, where="x"), tmp_path / str(size)).run
        results.append(load_checkpoint(checkpoint_files(run)[-1])["discriminator"])
    for key, value in results[0].items():
        assert torch.allclose(value, results[1][key], atol=1e-5), key


def test_a_microbatch_that_does_not_divide_is_refused(shapes: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(shapes, total_kimg=0.2, microbatch_size=7)
    with pytest.raises(ConfigError, match="microbatch_size: found 7; expected a divisor of 20"):
        train(parse_config(recipe, where="x"), tmp_path / "run")


EVALUATE = """
import sys
from ganexport.cli.gan import main
sys.argv = ["gan", "evaluate", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
def test_two_processes_share_an_evaluation(run: Path, tmp_path: Path) -> None:
    script = tmp_path / "evaluate.py"
    script.write_text(EVALUATE)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29513"]
    found = []
    for start in (launcher, []):
        output = tmp_path / f"{len(found)}.json"
        arguments = [
            run,
            "--num-images",
            "1200",
            "--metrics",
            "fid,kid,precision_recall",
            "-o",
            output,
        ]
        done = subprocess.run(
            [sys.executable, *start, str(script), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / str(len(found)))},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("precision ") == 1  # one of them speaks
        found.append(json.loads(output.read_text())["scores"])
    assert found[0] == found[1]
