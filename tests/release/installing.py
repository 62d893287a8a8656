"""Fresh environments, in which nothing of this checkout is to be seen."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def call(*command: object, cwd: Path, **variables: str) -> str:
    """Run a command that must succeed; what it says."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def interpreter(version: str) -> Path:
    """A Python of this version, such as "3.13"; the test is skipped where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")]
    for path in filter(None, found):  # a shim of pyenv's may be there and lead nowhere
        code = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"
        asked = subprocess.run([path, "-c", code], capture_output=True, text=True)
        if asked.stdout.strip() == version:
            return Path(path)
    pytest.skip(f"there is no python{version} here")


@functools.cache
def _complaint_of_the_index() -> str:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-cache-dir"]
        asked = subprocess.run([*pip, "-d", folder, "hatchling"], capture_output=True, text=True)
    return asked.stderr.strip()[-300:] if asked.returncode else ""


def need_an_index() -> None:
    """The test is skipped where no index of packages can be reached."""
    if complaint := _complaint_of_the_index():
        pytest.skip(f"no index of packages can be reached: {complaint}")


def install(commands: Path, *arguments: object) -> None:
    """What pip shall install into the environment that has its commands there."""
    call(commands / "pip", "install", "-q", "--no-cache-dir", *arguments, cwd=commands)


@contextmanager
def environment(python: Path, *arguments: object) -> Iterator[Path]:
    """The folder of the commands of a virtual environment, in which pip installed these.

    It does not outlive the test: with torch it has hundreds of megabytes, or gigabytes.
    """
    need_an_index()
    with tempfile.TemporaryDirectory() as folder:
        call(python, "-m", "venv", folder, cwd=Path(folder))
        install(Path(folder) / "bin", *arguments)
        yield Path(folder) / "bin"
