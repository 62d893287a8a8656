"""Quotas as kernels and containers show them, in trees of files as they do."""

import os
from pathlib import Path

import pytest

from ganinfer.errors import ConfigError
from ganinfer.host import limits
from ganinfer.host.limits import at_most, usable_cpus, usable_memory

Tree = dict[str, str]
V1_QUOTA = {"cpu.cfs_quota_us": "100000", "cpu.cfs_period_us": "100000"}


@pytest.fixture(autouse=True)
def _four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.delenv(limits.THREADS, raising=False)


def show(tree: Tree, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    monkeypatch.setattr(limits, "_ROOT", folder)


def v1(place: str) -> Tree:
    return {f"{place}/{name}": text for name, text in V1_QUOTA.items()}


@pytest.mark.parametrize(
    ("tree", "cpus"),
    [
        ({}, 4),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 4),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "250000 100000"}, 3),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": ""}, 4),
        (
            {
                "proc/self/cgroup": "0::/system.slice/app.service",
                "sys/fs/cgroup/system.slice/app.service/cpu.max": "100000 100000",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "0::/system.slice/app.service",
                "sys/fs/cgroup/system.slice/cpu.max": "200000 100000",
                "sys/fs/cgroup/system.slice/app.service/cpu.max": "max 100000",
            },
            2,
        ),
        # A container without a namespace of its own is told the host's path, and shown its root.
        ({"proc/self/cgroup": "0::/host/docker/abc", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/", **v1("sys/fs/cgroup/cpu,cpuacct")}, 1),
        ({"proc/self/cgroup": "4:cpu,cpuacct:/docker/abc", **v1("sys/fs/cgroup/cpu")}, 1),
        ({"proc/self/cgroup": "1:cpu:/pods/x", **v1("sys/fs/cgroup/cpu/pods/x")}, 1),
        ({"proc/self/cgroup": "2:cpuacct:/x\n1:cpu:/", **v1("sys/fs/cgroup/cpu/x")}, 4),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n0::/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "1:name=systemd:/\n0::/x",
                "sys/fs/cgroup/unified/x/cpu.max": "100000 100000",
            },
            1,
        ),
    ],
)
def test_quotas_of_every_level_hold(
    tree: Tree, cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(tree, tmp_path, monkeypatch)
    assert usable_cpus() == cpus


@pytest.mark.parametrize(
    "tree",
    [
        {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/memory.max": "1048576"},
        {
            "proc/self/cgroup": "4:memory:/a",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1048576",
        },
    ],
)
def test_memory_is_cut_down_too(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = usable_memory()
    show(tree, tmp_path, monkeypatch)
    assert usable_memory() == 1 << 20 < whole


def test_the_environment_and_a_sampler_ask_for_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    own = usable_cpus()
    monkeypatch.setenv(limits.THREADS, "2")
    assert usable_cpus() == min(2, own)
    with at_most(1):
        assert usable_cpus() == 1
    assert usable_cpus() == min(2, own)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_what_is_no_number_of_threads_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limits.THREADS, text)
    with pytest.raises(ConfigError, match="expected a number of threads, 1 or more"):
        usable_cpus()
