"""The command for a day with a GPU: what it has found outlives whatever happens to it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

COMMAND = Path(__file__).parents[1] / "benchmarks/gpu_day.py"
STAGE = "doctor"
ROWS = ["host", "packages", "what is missing", "driver", "torch", "onnxruntime", "tensorrt"]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command with its cheapest stage."""
    begun = []

    def started(*arguments: object) -> "subprocess.Popen[str]":
        given = ["--device", "cpu", "--minutes", "1", "--stage", STAGE]
        folders = ["-o", tmp_path / "out", "--cache", tmp_path / "cache"]
        begun.append(
            subprocess.Popen(
                [sys.executable, *map(str, [COMMAND, *given, *folders, *arguments])],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return begun[-1]

    yield started
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()


def rows_in(folder: Path) -> dict:
    file = folder / "out/gpu_day.json"
    return json.loads(file.read_text())["stages"].get(STAGE, {}) if file.exists() else {}


def wait_for(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def child_of(process: "subprocess.Popen[str]") -> int:
    """The stage's process."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has ended
            continue
        if int(parent) == process.pid:
            return int(stat.parent.name)
    raise AssertionError("no stage is running")


def running(pid: int) -> bool:
    """Is there such a process, and is it more than an entry that nobody has read yet?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def test_a_day_ends_with_its_rows_and_a_page_that_needs_nothing_else(
    start: Start, tmp_path: Path
) -> None:
    command = start()
    said = command.communicate()[0]
    assert command.returncode == 0, said
    rows = rows_in(tmp_path)
    assert set(ROWS) <= set(rows)
    assert {row["status"] for row in rows.values()} <= {"ok", "skipped"}
    page = (tmp_path / "out/gpu_day.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in rows)
    assert "src=" not in page.replace('src="data:', "")
    assert "<link" not in page
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "gpu_day.json", "gpu_day.html", "gpu_day.log",
    }  # fmt: skip


@needs_proc
def test_a_killed_command_takes_its_stage_with_it_and_goes_on(start: Start, tmp_path: Path) -> None:
    command = start()
    wait_for(lambda: "packages" in rows_in(tmp_path))
    stage = child_of(command)
    command.kill()
    wait_for(lambda: not running(stage))
    before = rows_in(tmp_path)
    assert 2 <= len(before) < len(ROWS)
    again = start()
    assert "host:" not in again.communicate()[0]
    rows = rows_in(tmp_path)
    assert {name: rows[name] for name in before} == before
    assert set(ROWS) <= set(rows)
    assert again.returncode == 0


@needs_proc
def test_a_killed_stage_costs_one_row_which_the_next_call_tries_again(
    start: Start, tmp_path: Path
) -> None:
    command = start()
    wait_for(lambda: "driver" in rows_in(tmp_path))
    os.kill(child_of(command), signal.SIGKILL)
    command.communicate()
    assert command.returncode == 1
    rows = rows_in(tmp_path)
    (lost,) = [name for name, row in rows.items() if row["status"] == "died"]
    assert "signal 9" in rows[lost]["why"]
    assert set(ROWS) <= set(rows)
    again = start()
    again.communicate()
    assert again.returncode == 0
    rows = rows_in(tmp_path)
    assert [name for name, row in rows.items() if row["deaths"]] == [lost]
    assert rows[lost]["status"] in ("ok", "skipped")


def test_rows_of_another_machine_are_taken_over(start: Start, tmp_path: Path) -> None:
    start().communicate()
    older = (tmp_path / "out/gpu_day.json").rename(tmp_path / "older.json")
    said = start("--from", older).communicate()[0]
    assert rows_in(tmp_path) == json.loads(older.read_text())["stages"][STAGE]
    assert "host:" not in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read as results"),
        ("{", "cannot be read as results"),
        ('{"format": 2}', "of format 1"),
        ('{"format": 1, "device": "cuda"}', "holds results of cuda"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_in_a_line(
    start: Start, tmp_path: Path, content: str | None, words: str
) -> None:
    older = tmp_path / "older.json"
    if content is not None:
        older.write_text(content)
    command = start("--from", older)
    said = command.communicate()[0]
    assert command.returncode == 1
    assert words in said
    assert len(said.splitlines()) == 1
    assert rows_in(tmp_path) == {}
