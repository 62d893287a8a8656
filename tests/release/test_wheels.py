"""The two files of a release: what is in them, and that a stranger's machine runs them."""

import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from installing import ROOT, call, environment, install, interpreter, need_an_index
from packaging.metadata import Metadata
from packaging.specifiers import SpecifierSet
from safetensors.numpy import load_file

PACKAGES = ("ganexport", "ganinfer", "gantrain")
BESIDE = {"PKG-INFO", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"}

pytestmark = pytest.mark.slow


class Made(NamedTuple):
    """What `python -m build` leaves: an sdist of this tree, and the wheel that is built from it."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    need_an_index()
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "-o", folder, ROOT, cwd=folder)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Made(sdist, wheel)


def tree(folder: str) -> set[str]:
    """The files of a folder of this checkout, litter left out."""
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {f"{path.relative_to(ROOT)}" for path in files if "__pycache__" not in path.parts}


def test_the_sdist_holds_what_a_wheel_is_made_of_and_nothing_else(made: Made) -> None:
    with tarfile.open(made.sdist) as file:
        found = {name.split("/", 1)[1] for name in file.getnames()}
    assert found == BESIDE.union(tree("configs"), *map(tree, PACKAGES))


def test_the_wheel_holds_three_typed_packages_and_the_recipes(made: Made) -> None:
    names = zipfile.ZipFile(made.wheel).namelist()
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    found = {name for name in names if ".dist-info/" not in name}
    assert found == {f"gantrain/{name}" for name in tree("configs")}.union(*map(tree, PACKAGES))
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_tree(made: Made, tmp_path: Path) -> None:
    call(sys.executable, "-m", "build", "--wheel", "-o", tmp_path, ROOT, cwd=tmp_path)
    (direct,) = tmp_path.glob("*.whl")
    assert direct.name == made.wheel.name
    assert direct.read_bytes() == made.wheel.read_bytes()


def test_the_metadata_is_valid_and_complete(made: Made) -> None:
    with zipfile.ZipFile(made.wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Metadata.from_email(file.read(name), validate=True)
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description == (ROOT / "README.md").read_text()
    assert all(requirement.url is None for requirement in metadata.requires_dist or [])
    named = {line.rpartition(" ")[2] for line in metadata.classifiers or [] if ":: 3." in line}
    assert isinstance(metadata.requires_python, SpecifierSet)
    assert named == {f"3.{n}" for n in range(30) if f"3.{n}" in metadata.requires_python}


@pytest.mark.parametrize("version", ["3.13", "3.14"])  # 3.11 is tried by test_lowest.py
def test_the_road_from_an_empty_folder(version: str, made: Made, tmp_path: Path) -> None:
    """Of the wheel and of the sdist, which train the same weights."""
    arguments = ("-c", ROOT / "constraints.txt", f"{made.wheel}[cpu,train,export]")
    weights = []
    with environment(interpreter(version), *arguments) as commands:
        gan = commands / "gan"
        for file in made:
            install(commands, "--no-deps", "--force-reinstall", file)
            folder = tmp_path / file.suffix
            folder.mkdir()
            call(gan, "train", "dcgan-digits", "--set", "train.total_kimg=5", cwd=folder)
            (checkpoint,) = (folder / "runs/dcgan-digits/checkpoints").glob("*.safetensors")
            weights.append({name: w.tobytes() for name, w in load_file(checkpoint).items()})
        assert weights[0] == weights[1]
        export = ("export", "runs/dcgan-digits", "-o", "digits.gan", "--num", 1000)
        call(gan, *export, cwd=folder)
        call(gan, "verify", "digits.gan", cwd=folder)
        call(gan, "sample", "digits.gan", "--seeds", "0-3", "-o", "four.png", cwd=folder)
    assert (folder / "four.png").read_bytes().startswith(b"\x89PNG")
