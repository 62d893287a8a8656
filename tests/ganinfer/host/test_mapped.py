"""Files that processes map: whole or absent, checked, bounded, and of this user alone."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ganinfer.errors import BackendUnavailable
from ganinfer.host import mapped as module
from ganinfer.host.mapped import folder, mapped

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are mapped on Linux alone")

GRAPH = bytes(100)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "LEAST_BYTES", len(GRAPH))


def write(place: Path) -> None:
    (place / "weights").write_bytes(b"w" * 1000)


def names() -> set[str]:
    return {place.name for place in folder().iterdir()} - {"lock"}


def test_many_who_ask_at_once_get_what_one_makes() -> None:
    made = []

    def make(place: Path) -> None:
        made.append(place)
        write(place)

    with ThreadPoolExecutor(4) as pool:
        (kept,) = set(pool.map(lambda _: mapped(GRAPH, "runtime 1", make), range(8)))
    assert len(made) == 1
    assert kept is not None
    assert names() == {kept.name}
    assert (kept / "weights").read_bytes() == b"w" * 1000


def test_another_runtime_or_graph_has_files_of_its_own() -> None:
    asked = [(GRAPH, "runtime 1"), (GRAPH, "runtime 2"), (GRAPH + b"x", "runtime 1")]
    assert len({mapped(graph, runtime, write) for graph, runtime in asked} - {None}) == 3


@pytest.mark.parametrize("name", ["weights", "sha256"])
def test_damaged_files_are_made_anew(name: str, caplog: pytest.LogCaptureFixture) -> None:
    kept = mapped(GRAPH, "", write)
    assert kept is not None
    (kept / name).write_bytes(b"\xff")
    assert mapped(GRAPH, "", write) == kept
    assert (kept / "weights").read_bytes() == b"w" * 1000
    assert "damaged; made anew" in caplog.text


def test_who_is_killed_half_way_leaves_nothing_that_stays() -> None:
    code = (
        "import os, signal, sys; from ganinfer.host import mapped as m; m.LEAST_BYTES = 0\n"
        "def make(place):\n"
        "    (place / 'weights').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"m.mapped(bytes({len(GRAPH)}), '', make)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (left,) = names()
    kept = mapped(GRAPH, "", write)
    assert kept is not None
    assert left.startswith(".")
    assert names() == {kept.name}


def test_what_cannot_be_made_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    def refuse(place: Path) -> None:
        write(place)
        raise BackendUnavailable("refused")

    assert mapped(GRAPH, "", refuse) is None
    assert names() == set()
    assert "not shared with other processes: refused" in caplog.text


def test_a_folder_that_others_may_write_to_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    kept = mapped(GRAPH, "", write)
    assert kept is not None
    kept.parent.chmod(0o777)
    assert mapped(GRAPH, "", write) is None
    assert "expected a folder of this user alone" in caplog.text


def test_what_was_unused_for_longest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2500)  # two of them
    first, second = (mapped(GRAPH, name, write) for name in ("1", "2"))
    assert first is not None
    assert second is not None
    for age, kept in enumerate([second, first]):
        os.utime(kept, (age, age))
    assert mapped(GRAPH, "2", write) == second
    third = mapped(GRAPH, "3", write)
    assert third is not None
    assert names() == {second.name, third.name}


def test_a_full_disk_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "_TIMES_THE_GRAPH", 1 << 50)
    assert mapped(GRAPH, "", write) is None
    assert names() == set()
    assert "bytes free" in caplog.text


def test_small_graphs_are_not_mapped_nor_any_if_one_says_so(monkeypatch) -> None:
    assert mapped(GRAPH[1:], "", write) is None
    monkeypatch.setenv("GANINFER_MAP", "0")
    assert mapped(GRAPH, "", write) is None
    assert not folder().exists()
