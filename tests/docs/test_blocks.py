"""The blocks of a page run, one after the other, as a reader types them."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pages import PAGES, ROOT, begins_with, blocks, name_of

from ganexport import ExportOptions, Spec, export, export_run
from gantrain import load_config, prepare, train
from gantrain.runs.checkpoint import load_generator

# Pages whose blocks, with what they begin with, take longer than 20 s; `pytest -m slow` runs them.
SLOW = {
    "README.md",
    "docs/bundle.md",
    "docs/data.md",
    "docs/exporting.md",
    "docs/extending.md",
    "docs/measuring.md",
    "docs/sampling.md",
    "docs/speed.md",
    "docs/step-by-step.md",
    "docs/training.md",
}

# What makes a long command short: options that are put behind those of the page.
SHORT = {
    "train": ["--set", "train.total_kimg=0.5"],
    "demo": ["--set", "train.total_kimg=0.5"],
    "evaluate": ["--num", "300"],
    "report": ["--num", "300"],
    "statistics": ["--num", "300"],
    "export": ["--num", "1000"],
    "verify": ["--num", "1000"],
    "bench": ["--seconds", "0.02"],
    "sample": ["--num", "200"],  # where there is one
}


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's road leaves behind, in small: data, a run and a bundle.

    The bundle is exported as a stranger's module, so that no classifier is trained for its gates.
    """
    folder = tmp_path_factory.mktemp("road")
    prepare("digits", folder / "data/digits", resolution=16)
    small = ["model.generator.width=8", "model.discriminator.width=8", "train.total_kimg=0.5"]
    place = f"data.path={folder / 'data/digits'}"
    recipe = load_config(Path("dcgan-digits"), [place, "train.device=cpu", *small])
    trained = load_generator(train(recipe, folder / "runs/dcgan-digits").run)
    spec = Spec(trained.network.z_dim, trained.classes)
    options = ExportOptions(precisions=["fp32"], num_images=1000)
    export(trained.network, spec, folder / "digits.gan", options)
    return folder


@pytest.fixture(scope="session")
def whole_road(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a bundle that was exported from the run."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(road, folder, dirs_exist_ok=True)
    options = ExportOptions(num_images=1000)
    export_run(folder / "runs/dcgan-digits", folder / "digits.gan", options)
    return folder


@pytest.fixture(scope="session")
def shims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `gan` that makes long work short, and this `python`."""
    folder = tmp_path_factory.mktemp("bin")
    program = f"""#!{sys.executable}
import sys
short = {SHORT!r}.get(sys.argv[1], [])
if sys.argv[1] != "sample" or {{"-n", "--num"}} & set(sys.argv):
    sys.argv += short
from ganexport.cli.gan import main
main()
"""
    (folder / "gan").write_text(program)
    (folder / "gan").chmod(stat.S_IRWXU)
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "python").chmod(stat.S_IRWXU)
    return folder


def run_page(page: Path, folder: Path) -> None:
    """Run a page's blocks in their order, as a reader types them: its programs are one session."""
    session: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.not_run is not None or block.language not in ("sh", "python"):
            continue
        if block.file_name is not None:
            place = folder / block.file_name
            place.parent.mkdir(exist_ok=True)
            place.write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, block.where, "exec"), session)
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=240,
            )
            assert done.returncode == 0, (
                f"{block.where}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] * (name_of(page) in SLOW))
        for page in PAGES
        if any(b.not_run is None and b.language in ("sh", "python") for b in blocks(page))
    ],
)
def test_what_a_page_shows_runs(
    page: Path,
    request: pytest.FixtureRequest,
    shims: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in begins_with(page):
        fixture = "whole_road" if name_of(page) in SLOW else "road"
        road: Path = request.getfixturevalue(fixture)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(road / name, tmp_path / name)
    monkeypatch.setenv("PATH", os.pathsep.join([str(shims), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path)


@pytest.mark.slow
def test_a_type_checker_finds_nothing_in_the_programs(tmp_path: Path) -> None:
    """Those that are not run, too: a renamed argument is found."""
    for page in PAGES:
        programs = [block.text for block in blocks(page) if block.language == "python"]
        if programs:
            (tmp_path / f"{page.stem.lower()}.py").write_text("".join(programs))
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--check-untyped-defs", "."],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
