import time
from functools import partial
from itertools import pairwise

import pytest

from ganinfer.cli import console
from ganinfer.cli.console import Pace, progress_bars, spoken, step_by_step


@pytest.mark.parametrize("shown", [progress_bars, partial(step_by_step, "measuring")])
def test_in_a_pipe_long_work_says_on_stderr_how_far_it_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shown
) -> None:
    """Also while it does not report: the line comes from a thread."""
    monkeypatch.setattr(console, "_GAP_S", 0.05)
    told = ""
    with shown() as report:
        report("reading images", 12_000, 60_000)
        for _ in range(200):
            if told := capfd.readouterr().err:
                break
            time.sleep(0.05)
    assert told.startswith("reading images: 12,000 of 60,000, after ")


def test_short_work_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as report:
        report("reading images", 1, 1)
    assert capfd.readouterr() == ("", "")


def test_names_between_colons_are_no_pictures(capfd: pytest.CaptureFixture[str]) -> None:
    console.console.print("--module nets:five: gives int")
    console.errors.print("nets:five: gives int")
    assert capfd.readouterr() == ("--module nets:five: gives int\n", "nets:five: gives int\n")


def test_lines_come_more_seldom_as_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace, said = Pace(), []
    for second in range(24 * 3600):
        now = float(second)
        if pace.due():
            said.append(second)
    assert said[:3] == [10, 20, 30]
    gaps = [b - a for a, b in pairwise(said)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == 600


def test_times_in_words() -> None:
    assert [spoken(s) for s in (0.4, 99, 720, 12_000)] == ["0 s", "99 s", "12 min", "3 h 20 min"]
