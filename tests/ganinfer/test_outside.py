import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganinfer.errors import ConfigError
from ganinfer.outside import current_folder, is_own, load, sources_sha256


@pytest.fixture
def mylab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's, beside him."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mylab").mkdir()
    yield tmp_path / "mylab"
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]


def test_ours_have_neither_dot_nor_colon() -> None:
    assert not is_own("hinge")
    assert is_own("mylab.losses")
    assert is_own("mylab:Hinge")


def test_the_current_folder_is_importable_for_the_import_alone(mylab: Path) -> None:
    before = list(sys.path)
    (mylab / "a.py").write_text("import sys\nimport mylab.b\nPATH = list(sys.path)\n")
    (mylab / "b.py").write_text("VALUE = 3\n")
    found = load("mylab.a", where="x").PATH
    assert found == [str(mylab.parent), *before]
    assert load("mylab.b:VALUE", where="x") == 3
    assert sys.path == before


def test_a_module_that_changes_the_path_keeps_its_change(mylab: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (mylab / "a.py").write_text("import sys\nsys.path[:] = ['elsewhere']\n")
    load("mylab.a", where="x")
    assert sys.path == ["elsewhere"]


def test_a_folder_that_was_removed_is_no_obstacle(mylab: Path) -> None:
    mylab.rmdir()
    mylab.parent.rmdir()
    with current_folder(), pytest.raises(ConfigError, match="there is no module 'mylab'"):
        load("mylab.a", where="x")
    assert load("json:loads", where="x")("1") == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mylab.", "expected package.module or package.module:Name"),
        ("mylab/a.py", "expected package.module"),
        ("../mylab.a", "expected package.module"),
        ("mylab.a:", "expected package.module"),
        ("mylab.a:B.c", "expected package.module"),
        ("mylab._a", "names that do not begin with _"),
        ("__main__:A", "names that do not begin with _"),
        ("mylabs.a", r"no module 'mylabs'; looked in the current folder {here} and among .* of"),
        ("mylab.b", r"mylab is {here}/mylab, and there is no 'b' in it; it has a, broken"),
        ("mylab.a.b", r"mylab.a is .*/a.py, one module without others in it; .* mylab.a:b$"),
        ("os.system", "os is .*one module without others in it; a name in it is os:system"),
        ("mylab.a:B", r"mylab.a \({here}/mylab/a.py\) has no 'B'; it has A$"),
    ],
)
def test_what_is_not_there_is_said_with_where_was_looked(mylab: Path, name, words) -> None:
    (mylab / "a.py").write_text("import os\nA = 1\n")
    (mylab / "broken.py").write_text("")
    with pytest.raises(ConfigError, match=words.format(here=mylab.parent)) as caught:
        load(name, where="x.toml [objective] name")
    assert str(caught.value).startswith("x.toml [objective] name: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\ny = (\n", r"a.py, line 2: SyntaxError: '\(' was never closed"),
        ("\nimport nowhere\n", r"a.py, line 2: ModuleNotFoundError: No module named 'nowhere'"),
        ("from json import nothing\n", "a.py, line 1: ImportError: cannot import name 'nothing'"),
        ("import json\njson.loads('')\n", "a.py, line 2: JSONDecodeError: Expecting value"),
        ("import mylab.b\n", "b.py, line 1: ZeroDivisionError: division by zero"),
        ("import helper\n", "helper.py, line 2: KeyError: 'x'"),
        ("raise SystemExit(2)\n", "a.py, line 1: SystemExit: 2"),
    ],
)
def test_what_fails_inside_is_said_with_file_and_line(mylab: Path, text: str, words: str) -> None:
    (mylab / "a.py").write_text(text)
    (mylab / "b.py").write_text("1 / 0\n")
    (mylab.parent / "helper.py").write_text("\n{}['x']\n")
    with pytest.raises(ConfigError, match=f"^x: mylab.a fails as it is imported: .*{words}"):
        load("mylab.a", where="x")


def test_the_sources_of_a_package_are_all_its_files(mylab: Path) -> None:
    (mylab / "a.py").write_text("")
    (mylab / "b.py").write_text("1")
    load("mylab.a", where="x")
    first = sources_sha256("mylab.a:A")
    (mylab / "notes.txt").write_text("not code")
    assert sources_sha256("mylab.a") == first
    (mylab / "b.py").write_text("2")
    assert sources_sha256("mylab.a") != first
