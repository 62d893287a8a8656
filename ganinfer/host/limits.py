"""What this process may use of the machine: processors and memory, as containers cut them down.

Control groups, version 1 and 2: a limit of any group from a process's own up to the root holds. In
a container the path that the kernel tells may be the host's, of which only the root is shown.
"""

import contextlib
import contextvars
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ganinfer.errors import ConfigError

THREADS = "GANINFER_THREADS"  # in the environment: threads at most, of all samplers together

_ROOT = Path("/")  # where /proc and /sys lie
_asked: contextvars.ContextVar[int | None] = contextvars.ContextVar("threads", default=None)


def usable_cpus() -> int:
    """CPUs that this process may use: its affinity, cut down by quotas, and by what was asked for.

    Raises:
        ConfigError: the environment's GANINFER_THREADS is no number.
    """
    affinity = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _cpu_quotas()]
    return max(1, min([count, *quotas, *_threads_asked()]))


@contextlib.contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    """Within it `usable_cpus` is no more than that; None for no such limit."""
    token = _asked.set(threads)
    try:
        yield
    finally:
        _asked.reset(token)


def usable_memory() -> int:
    """Bytes of memory that this process may have: the machine's, cut down by limits."""
    try:
        installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # another system
        installed = 8 << 30
    return min([installed, *_memory_limits()])


def _threads_asked() -> list[int]:
    found = [] if (threads := _asked.get()) is None else [threads]
    if text := os.environ.get(THREADS):
        if not text.isdecimal() or not int(text):
            raise ConfigError(f"{THREADS}={text!r}: expected a number of threads, 1 or more")
        found.append(int(text))
    return found


def _cpu_quotas() -> Iterator[float]:
    """Processors that each group allows."""
    for group in _groups(""):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)
    for group in _groups("cpu"):
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):  # -1 is none
            yield int(quota) / int(period)


def _memory_limits() -> Iterator[int]:
    """Bytes that each group allows."""
    files = [group / "memory.max" for group in _groups("")]
    files += [group / "memory.limit_in_bytes" for group in _groups("memory")]
    for file in files:
        if (text := _read(file)).isdecimal():
            yield int(text)


def _groups(controller: str) -> list[Path]:
    """Folders of this process's group and of those above it; "" is version 2."""
    shown = _ROOT / "sys/fs/cgroup"
    own = PurePosixPath("/")
    mounts = [shown, shown / "unified"] if not controller else [shown / controller]
    for line in _read(_ROOT / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(",") and (controller or number == "0"):
            own = PurePosixPath(path)
            if controller:
                mounts.append(shown / names)  # "cpu,cpuacct"
    return [
        mount / str(group).lstrip("/")
        for mount in mounts
        for group in (own, *own.parents)
        if ".." not in group.parts
    ]


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
