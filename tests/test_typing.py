"""What a type checker sees of the installed packages."""

import subprocess
import sys
from pathlib import Path

import pytest

import ganinfer

ROOT = Path(ganinfer.__file__).parent.parent
USER = Path(__file__).parent / "typing/user.py"


@pytest.mark.parametrize("package", ["ganinfer", "gantrain", "ganexport"])
def test_packages_say_that_they_are_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.slow
def test_a_users_script_is_clean_under_mypy_strict(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", str(USER)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
