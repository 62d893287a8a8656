"""Shared fixtures: one small dataset, run and bundle for the whole session.

The dataset is drawn, not shipped: 300 RGB images of 16x16, three classes (a red disc, a green bar,
a blue square) at random places.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from site import getsitepackages

import numpy as np
import pytest
import torch

from ganexport.importers import stylegan2
from ganexport.options import ExportOptions
from ganexport.pipeline import Exported, export, export_run
from ganinfer.bundle.archive import Bundle
from ganinfer.bundle.manifest import MANIFEST, MANIFEST_DIGEST, digest_line
from ganinfer.bundle.tree import write_tree
from gantrain.data.prepare import prepare
from gantrain.game.config import Config, parse_config
from gantrain.training.train import train

CLASSES = ["disc", "bar", "square"]


def draw_shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 16, 16, 3) and labels (N,)."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (count, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(count) % 3
    rows, columns = np.mgrid[:16, :16]
    for image, label in zip(images, labels, strict=True):
        y, x = rng.integers(4, 12, 2)
        shape = (
            (rows - y) ** 2 + (columns - x) ** 2 <= 10,
            np.abs(columns - x) <= 1,
            np.maximum(np.abs(rows - y), np.abs(columns - x)) <= 2,
        )[label]
        image[shape, label] = rng.integers(180, 256)
    return images, labels


# Options that make every architecture small: of its generator, of its discriminator.
SMALL: dict[str, tuple[dict, dict]] = {
    "mlp": ({"hidden": [32]}, {"hidden": [16]}),
    "dcgan": ({"width": 8, "z_dim": 16}, {"width": 8}),
    "resnet": ({"width": 4, "z_dim": 16}, {"width": 4}),
    "sagan": ({"width": 4, "z_dim": 16}, {"width": 4}),
    "biggan": ({"width": 4}, {"width": 4}),
    "biggan_deep": ({"width": 4, "z_dim": 16}, {"width": 4}),
    "r3gan": (
        {"widths": [16], "blocks": 1, "cardinality": 4, "z_dim": 16},
        {"widths": [16], "blocks": 1, "cardinality": 4},
    ),
    "stylegan2": (
        {"channel_max": 8, "z_dim": 16, "w_dim": 12, "depth": 2},
        {"channel_max": 8, "depth": 1},
    ),
}


def tiny_recipe(data: Path, **train_options: object) -> dict:
    """A recipe that trains in seconds; train_options override its [train]."""
    adam = {"name": "adam", "learning_rate": 1e-3, "betas": [0.5, 0.999]}
    return {
        "data": {"path": str(data)},
        "model": {
            "name": "dcgan",
            "generator": {"z_dim": 16, "width": 8},
            "discriminator": {"width": 8},
        },
        "objective": {"name": "hinge"},
        "regularizers": [
            {"name": "spectral_norm", "networks": ["generator", "discriminator"]},
        ],
        "optimizer": {"generator": adam, "discriminator": adam},
        "train": {
            "total_kimg": 4,
            "batch_size": 20,
            "ema_half_life_kimg": 1.0,
            "checkpoint_kimg": 2.0,
            "log_kimg": 1.0,
            "sample_kimg": 2.0,
            "device": "cpu",
            **train_options,
        },
    }


# A process for each core runs the tests; threads of theirs would only wait for each other.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A release's tests take minutes each: they come first, lest all others wait for them."""
    items.sort(key=lambda item: "release" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("GANINFER_MEASURE", "0")  # tests compare images of several processes
        yield


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset."""
    folder = tmp_path_factory.mktemp("shapes")
    images, labels = draw_shapes(300, seed=0)
    np.savez(folder / "shapes.npz", images=images, labels=labels)
    return prepare(str(folder / "shapes.npz"), folder / "data").path


@pytest.fixture(scope="session")
def recipe(shapes: Path) -> Config:
    return parse_config(tiny_recipe(shapes), where="tiny.toml")


@pytest.fixture(scope="session")
def run(recipe: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short, finished training run."""
    return train(recipe, tmp_path_factory.mktemp("runs") / "tiny").run


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_run(
        run, tmp_path_factory.mktemp("bundles") / "tiny.gan", ExportOptions(num_images=1000)
    )


@pytest.fixture(scope="session")
def bundle(exported: Exported) -> Path:
    """A verified bundle, as a directory. Tests that change it copy it first."""
    return exported.path


@pytest.fixture(scope="session")
def single_file(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle in one file."""
    path = tmp_path_factory.mktemp("single") / "tiny.gan"
    with Bundle(bundle) as opened:
        write_tree(path, opened.tree(), single_file=True)
    return path


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where downloads are kept: of this test alone, and not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/ganpipe/bundles"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are read some images at a time, as if they were large."""
    monkeypatch.setattr("gantrain.data.sources.parts.BLOCK_BYTES", 4096)


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own, to be changed."""
    return Path(shutil.copytree(bundle, tmp_path / "copy.gan"))


def rewrite_manifest(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the manifest and make its digest right again, as an attacker can."""
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    data = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(data)
    (folder / MANIFEST_DIGEST).write_bytes(digest_line(data))


@pytest.fixture(scope="session")
def judged(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A bundle that holds its discriminator."""
    path = tmp_path_factory.mktemp("judged") / "tiny.gan"
    return export_run(
        run, path, ExportOptions(with_discriminator=True, precisions=["fp32"], num_images=1000)
    )


@pytest.fixture(scope="session")
def mixable(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes mixtures of classes."""
    options = ExportOptions(class_weights=True, precisions=["fp32"], num_images=1000)
    return export_run(run, tmp_path_factory.mktemp("mixable") / "x.gan", options).path


@pytest.fixture(scope="session")
def styled(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The bundle of a StyleGAN2 of random weights: 16x16 pixels, 6 styles of length 12."""
    from test_importer_stylegan2 import CLASSES as PLAN
    from test_importer_stylegan2 import state_of

    made = stylegan2.read(state_of(PLAN), classes=["cat", "dog", "fox"])
    path = tmp_path_factory.mktemp("styled") / "x.gan"
    return export(*made, path, ExportOptions(num_images=1000))


@pytest.fixture(scope="session")
def gan() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the gan command in a process of its own."""

    def call(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*GAN, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
        )

    return call


@pytest.fixture(scope="session")
def ray_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has Ray beside all that this one has; all processes of a session share it."""
    fcntl = pytest.importorskip("fcntl", reason="Ray's tests are for Linux and macOS")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ray"
    python = folder / "bin/python"
    with (folder.parent / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            (site,) = folder.glob("lib/python*/site-packages")
            (site / "below.pth").write_text("\n".join(getsitepackages()) + "\n")
            constraints = Path(__file__).parent.parent / "constraints.txt"
            command = [python, "-m", "pip", "install", "-q", "--only-binary=:all:"]
            command += ["-c", constraints, "ray[serve]"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"Ray cannot be had: {done.stderr.strip().splitlines()[-1]}")
            (folder / "whole").touch()
    return python


def run_python(code: str, *arguments: object, env: dict[str, str] | None = None) -> list[str]:
    """The lines that a program of its own prints, which ends in order."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


GAN = [sys.executable, "-c", "from ganexport.cli.gan import main; main()"]
os.environ.setdefault("COLUMNS", "200")
