"""The images: what their files promise, and their commands, run in a virtual environment."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from installing import ROOT, call, interpreter, need_an_index

FILES = ["Dockerfile.cpu", "Dockerfile.gpu"]
PLACE = "/opt/ganpipe"  # where the images have their virtual environment


def instructions(name: str) -> list[tuple[str, str]]:
    """(instruction, its arguments) of a Dockerfile, in order."""
    text = (ROOT / "docker" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def final_stage(name: str) -> dict[str, str]:
    """The last of each instruction of the stage that is the image."""
    found = instructions(name)
    start = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    return dict(found[start:])


def context(destination: Path) -> Path:
    """The folder that a build sees: what .dockerignore lets through of the checkout."""
    ignore = (ROOT / ".dockerignore").read_text().split()
    assert ignore[0] == "*"
    assert ignore[-1] == "**/__pycache__"
    destination.mkdir()
    for name in ignore[1:-1]:
        assert name.startswith("!")
        source, target = ROOT / name[1:], destination / name[1:]
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return destination


def copied(name: str, seen: Path, destination: Path) -> Path:
    """What the COPY lines of the first stage make of what a build sees."""
    destination.mkdir()
    for word, rest in instructions(name):
        if word != "COPY" or rest.startswith("--from"):
            continue
        *sources, target = rest.split()
        for source in sources:
            if (seen / source).is_dir():  # a folder's contents go into the target
                shutil.copytree(seen / source, destination / target)
            else:
                shutil.copy(seen / source, destination / target)
    return destination


def commands(name: str, place: Path, python: Path) -> list[str]:
    """The RUN lines that make the environment, with the defaults of ARG, for another place."""
    defaults = dict(rest.split("=") for word, rest in instructions(name) if word == "ARG")
    lines = [rest for word, rest in instructions(name) if word == "RUN" and PLACE in rest]
    for variable, value in defaults.items():
        lines = [line.replace(f"${variable}", value) for line in lines]
    return [re.sub(r"^python ", f"{python} ", line.replace(PLACE, f"{place}")) for line in lines]


def version(name: str) -> str:
    """Of Python, as the image has it: the same in both stages."""
    found = {rest.split()[0] for word, rest in instructions(name) if word == "FROM"}
    (image,) = found
    matched = re.fullmatch(r"python:(3\.\d+)-slim", image)
    assert matched
    return matched[1]


@pytest.mark.parametrize("name", FILES)
def test_an_image_runs_gan_as_a_user_without_rights(name: str) -> None:
    image = final_stage(name)
    assert image["USER"] == "gan"
    assert ("RUN", "useradd --create-home --uid 1000 gan") in instructions(name)
    assert json.loads(image["ENTRYPOINT"]) == ["gan"]
    assert image["COPY"] == f"--from=build {PLACE} {PLACE}"
    assert f'PATH="{PLACE}/bin:$PATH"' in image["ENV"]


@pytest.mark.parametrize("name", FILES)
def test_a_sampling_image_asks_for_no_torch(name: str) -> None:
    """Its extras bring none; what it installs is checked for the CPU below."""
    (extras,) = [rest for word, rest in instructions(name) if word == "ARG"]
    assert extras.removeprefix("EXTRAS=") == name.removeprefix("Dockerfile.")


@pytest.mark.slow
def test_the_cpu_images_commands_give_gan_and_sampler_without_torch(
    bundle: Path, tmp_path: Path
) -> None:
    need_an_index()
    name, place = "Dockerfile.cpu", tmp_path / "opt"
    source = copied(name, context(tmp_path / "context"), tmp_path / "src")
    for command in commands(name, place, interpreter(version(name))):
        call("sh", "-c", command, cwd=source)
    # As an image is: the environment, no sources, and its entry point on the PATH.
    home = tmp_path / "home"
    shutil.copytree(bundle, home / "tiny.gan")
    image, path = final_stage(name), f"{place / 'bin'}:/usr/bin:/bin"
    gan = json.loads(image["ENTRYPOINT"])
    assert "Sample and serve" in call(*gan, *json.loads(image["CMD"]), cwd=home, PATH=path)
    call(*gan, "verify", "tiny.gan", cwd=home, PATH=path)
    call(*gan, "sample", "tiny.gan", "--seeds", "0-3", "-o", "four.png", cwd=home, PATH=path)
    assert (home / "four.png").is_file()
    code = "from ganinfer import Sampler; print(Sampler('tiny.gan').sample(2, seed=0).shape)"
    assert call("python", "-c", code, cwd=home, PATH=path).strip() == "(2, 16, 16, 3)"
    for absent in ("torch", "onnx", "sklearn"):
        asked = subprocess.run([place / "bin/python", "-c", f"import {absent}"], cwd=home)
        assert asked.returncode
    shutil.rmtree(place)


@pytest.mark.slow
def test_what_the_gpu_image_installs_can_be_had(tmp_path: Path) -> None:
    """pip names what it would install, and does not: CUDA's libraries have gigabytes."""
    need_an_index()
    name, place = "Dockerfile.gpu", tmp_path / "opt"
    source = copied(name, context(tmp_path / "context"), tmp_path / "src")
    make, install = commands(name, place, interpreter(version(name)))
    call("sh", "-c", make, cwd=source)
    dry = install.replace("pip install", "pip install --dry-run --only-binary :all:")
    said = call("sh", "-c", dry, cwd=source)
    installed = said.rpartition("Would install")[2]
    for needed in ("ganpipe", "onnxruntime-gpu", "nvidia-cudnn-cu13", "nvidia-cublas", "numpy"):
        assert f" {needed}-" in installed
    assert " torch-" not in installed
    assert " onnxruntime-1" not in installed  # it would overwrite the one for GPUs
    shutil.rmtree(place)
