"""The project's tests that need a GPU, a row each."""

from pathlib import Path
from typing import Any

import pytest

from gpu_day.day import Day, OutOfTime

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 90  # of a test, with what it compiles


class Rows:
    """Tells the outcome of each test."""

    def __init__(self, day: Day) -> None:
        self._day = day
        self._reports: list[Any] = []
        self.out_of_time = False

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid not in self._day.finished]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._reports = []
        try:
            self._day.begin(nodeid, LIMIT_S)
        except OutOfTime:
            self.out_of_time = True
            pytest.exit("no time left")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        seconds = sum(report.duration for report in self._reports)
        status, why = "ok", ""
        for report in self._reports:
            if report.failed:
                status, why = "failed", failure_line(report)
            elif report.skipped:
                status, why = "skipped", str(report.longrepr[2]).removeprefix("Skipped: ")
        self._day.end(nodeid, status, why, {}, seconds)


def failure_line(report: pytest.TestReport) -> str:
    """The first line of what went wrong."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    return text.strip().splitlines()[0][:400]


def run(day: Day) -> None:
    files = [
        str(file)
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if "pytest.mark.gpu" in file.read_text()
    ]
    rows = Rows(day)
    code = pytest.main(
        ["-o", "addopts=", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files],
        plugins=[rows],
    )
    if rows.out_of_time:
        raise OutOfTime
    if code not in (0, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with {code!r}; see gpu_day.log")
