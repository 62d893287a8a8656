"""A short form of benchmarks/serving_stress.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tiny_recipe

from ganexport.options import ExportOptions
from ganexport.pipeline import export_run
from gantrain.game.config import parse_config
from gantrain.training.train import train

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc"),
]
PROGRAM = Path(__file__).parents[3] / "benchmarks/serving_stress.py"


@pytest.fixture(scope="module")
def other(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of another training of the same recipe."""
    folder = tmp_path_factory.mktemp("other")
    run = train(parse_config(tiny_recipe(shapes, seed=7), where="other"), folder / "run").run
    return export_run(run, folder / "x.gan", ExportOptions(num_images=1000)).path


def test_every_answer_is_right_and_none_is_lost(bundle: Path, other: Path, tmp_path: Path) -> None:
    place = tmp_path / "found.json"
    command = [sys.executable, PROGRAM, bundle, other, "--minutes", "0.25", "-o", place]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads(place.read_text())
    assert all(found["held"].values())
    assert sum(n for what, n in found["outcomes"].items() if what.startswith("right")) > 100
