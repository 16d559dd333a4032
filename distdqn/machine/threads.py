"""How many more threads may be started here: each process has many, and all of them count."""

import contextlib
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from distdqn.machine.groups import control_groups

_KERNEL = ("pid_max", "threads-max")


def free_threads(
    group: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")
) -> tuple[float, str]:
    """Threads that may still be started, and the limit that says so; infinite where unknown.

    group: where control groups are.  proc: where the proc file system is.
    """
    limits = [(math.inf, ""), *_of_kernel(proc), *_of_groups(group, proc), *_of_user()]
    left, name = min(limits)
    return max(left, 0), name


def _of_kernel(proc: Path) -> Iterator[tuple[float, str]]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        there = int((proc / "loadavg").read_text().split()[3].partition("/")[2])
        for name in _KERNEL:
            most = int((proc / "sys" / "kernel" / name).read_text())
            yield most - there, f"kernel.{name}"


def _of_groups(group: Path, proc: Path) -> Iterator[tuple[float, str]]:
    for folder in control_groups(group, proc):
        with contextlib.suppress(OSError, ValueError):  # no limit: "max"
            most, there = (int((folder / f"pids.{x}").read_text()) for x in ("max", "current"))
            yield most - there, "the control group's pids.max"


def _of_user() -> Iterator[tuple[float, str]]:
    """The administrator is exempt."""
    most, uid = resource.getrlimit(resource.RLIMIT_NPROC)[0], os.getuid()
    if most == resource.RLIM_INFINITY or uid == 0:
        return
    import psutil

    there = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            there += process.num_threads() if process.uids().real == uid else 0
    yield most - there, "ulimit -u"
