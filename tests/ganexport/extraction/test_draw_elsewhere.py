"""The same bits in the oldest onnxruntime that is supported, and in Node.js's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from site import getsitepackages

import numpy as np
import pytest

from ganexport.extraction.check import SEEDS
from ganexport.extraction.extract import extract
from ganexport.extraction.options import ExtractOptions
from ganinfer import Sampler

pytestmark = pytest.mark.slow


def installed(command: list[object], folder: Path) -> None:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{command[-1]} cannot be had: {done.stderr.strip().splitlines()[-1]}")


def test_the_tests_of_the_nodes_pass_on_onnxruntime_1_20(tmp_path: Path) -> None:
    if sys.version_info >= (3, 14):
        pytest.skip("onnxruntime 1.20 is for Python 3.10 to 3.13")
    python = tmp_path / "old/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "old"], check=True)
    (site,) = (tmp_path / "old").glob("lib/python*/site-packages")
    (site / "below.pth").write_text("\n".join(getsitepackages()) + "\n")
    pip = [python, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:"]
    installed([*pip, "onnxruntime==1.20.*"], tmp_path)
    says = [python, "-c", "import onnxruntime; print(onnxruntime.__version__)"]
    assert subprocess.check_output(says, text=True).startswith("1.20.")
    tests = Path(__file__).with_name("test_draw_nodes.py")
    command = [python, "-m", "pytest", "-q", "-n", "0", tests]
    done = subprocess.run(command, cwd=tests.parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


NODE_PROGRAM = """
import { createRequire } from "node:module";
const { InferenceSession, Tensor } = createRequire(process.cwd() + "/")("onnxruntime-node");
const seeds = BigInt64Array.from(GIVEN, (seed) => BigInt.asIntN(64, BigInt(seed)));
const feed = {
  seed: new Tensor("int64", seeds, [seeds.length]),
  y: new Tensor("int64", seeds.map(() => -1n), [seeds.length]),
  truncation: new Tensor("float64", Float64Array.from(seeds, () => 0.7), [seeds.length]),
};
const session = await InferenceSession.create("g.onnx");
const { images } = await session.run(feed);
process.stdout.write(images.data);
"""


def test_seeds_give_the_same_images_in_node(bundle: Path, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js (node, npm)")
    # Its own script would fetch libraries for GPUs from elsewhere.
    installed([npm, "install", "--ignore-scripts", "--no-audit", "onnxruntime-node"], tmp_path)
    extract(bundle, tmp_path / "g.onnx", ExtractOptions(latents="seed"))
    program = NODE_PROGRAM.replace("GIVEN", json.dumps([str(seed) for seed in SEEDS]))
    done = subprocess.run(
        [node, "--input-type=module", "-"],
        input=program.encode(),
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    with Sampler(bundle) as sampler:
        expected = sampler.sample(seeds=list(SEEDS), truncation=0.7)
    assert np.array_equal(np.frombuffer(done.stdout, np.uint8).reshape(expected.shape), expected)
