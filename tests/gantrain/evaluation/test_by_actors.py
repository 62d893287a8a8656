"""Measuring by the actors of a real cluster of Ray, which starts on this machine."""

import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

import ganinfer
from gantrain.evaluation.evaluate import evaluate

METRICS = ["fid", "kid", "label_accuracy", "precision_recall", "sfid"]

PROGRAM = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from ganinfer.engines.cluster import Cluster
from gantrain.evaluation.evaluate import evaluate

told = []
record = evaluate(
    Path(sys.argv[1]),
    metrics=sys.argv[3:],
    num_images=1200,
    cache=Path(sys.argv[2]),
    cluster=Cluster(actors=2),
    progress=lambda *all: told.append(all),
)
print(json.dumps([asdict(record), [t for t in told if t[0] == "measuring by actors"]]))
"""


@pytest.mark.slow
def test_figures_are_those_of_one_process(ray_python: Path, bundle: Path, tmp_path: Path) -> None:
    root = Path(ganinfer.__file__).parent.parent
    env = {**os.environ, "PYTHONPATH": str(root), "HOME": str(tmp_path)}
    command = [ray_python, "-c", PROGRAM, bundle, tmp_path / "cache", *METRICS]
    alone = evaluate(bundle, metrics=METRICS, num_images=1200, cache=tmp_path / "alone")
    for num_chunks in (4, 1, 0):  # three of generated images, one of the 300 real ones
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        record, told = json.loads(done.stdout.splitlines()[-1])
        assert [t[1:] for t in told] == [[n + 1, num_chunks] for n in range(num_chunks)]
        assert record == asdict(alone)
        if num_chunks == 4:
            next((tmp_path / "cache").glob("*/*.safetensors")).unlink()
