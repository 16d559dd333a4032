"""The CPU: what it is, who got its time, who gives way.

Linux tells both of every thread (/proc/self/task/*/schedstat) and the work of the whole
machine (/proc/stat); elsewhere queues read 0 and the machine's work is unknown.
"""

import contextlib
import dataclasses
import functools
import math
import os
import platform
import threading
from pathlib import Path
from typing import IO

_LONGEST_LINE = 80
_NICE, _NICEST = 10, 19  # at 10 the scheduler gives the learner nine times the share
_STAT_USER_TO_STEAL = 8  # columns of /proc/stat before those of guests, which user includes
_STAT_WAITING = (3, 4)  # idle, iowait


@dataclasses.dataclass(frozen=True, slots=True)
class ThreadTimes:
    """Seconds since the thread began.

    cpu_s: on a CPU.  queued_s: ready to run but without one.  Both are 0 where unknown.
    """

    cpu_s: float = 0.0
    queued_s: float = 0.0


class ThreadClock:
    """Reads the times of the thread that made it, from any thread; 2 microseconds."""

    def __init__(self, proc: Path = Path("/proc")):
        """proc: where the proc file system is."""
        self._file: IO[bytes] | None = None
        path = proc / "self" / "task" / str(threading.get_native_id()) / "schedstat"
        with contextlib.suppress(OSError):
            self._file = path.open("rb", buffering=0)  # kept: opening takes most of the time

    def read(self) -> ThreadTimes:
        """The times so far; unknown ones once the thread has ended."""
        if self._file is None:
            return ThreadTimes()
        try:
            cpu_ns, queued_ns = os.pread(self._file.fileno(), _LONGEST_LINE, 0).split()[:2]
            return ThreadTimes(int(cpu_ns) / 1e9, int(queued_ns) / 1e9)
        except (OSError, ValueError):
            return ThreadTimes()


def machine_busy_s(proc: Path = Path("/proc")) -> float:
    """CPU seconds that all programs of this machine have taken; nan where unknown.

    Time that a hypervisor gave to others is in it. Unknown too where this process may use
    only some of the cores: others' work on the rest takes nothing from it.
    """
    if usable_cores() != os.cpu_count():
        return math.nan
    try:
        with open(proc / "stat") as file:
            ticks = [int(word) for word in file.readline().split()[1 : 1 + _STAT_USER_TO_STEAL]]
        waiting = sum(ticks[column] for column in _STAT_WAITING)
        return (sum(ticks) - waiting) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return math.nan


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, or a container's quota, at least 1.

    quota: the control group's, "MICROSECONDS PERIOD" or "max PERIOD".
    """
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        count = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text().split()
        return max(min(count, math.ceil(int(allowed) / int(period))), 1)
    except (OSError, ValueError):  # none, "max", or another system
        return count


@functools.cache
def cpu_info(*names: str) -> str:
    """The value of the first line of /proc/cpuinfo with one of these names, in small letters.

    Elsewhere than on Linux it is the platform's name for the processor.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in names:
                return value.strip()
    return platform.processor() or platform.machine()


def cpu_model() -> str:
    """Its maker's name for it."""
    return cpu_info("model name")


def cpu_flags() -> str:
    """Its instruction sets, any of which a compiler may use."""
    return cpu_info("flags", "features")


def give_way() -> None:
    """Lowers this process's priority; weight server, shards and most env workers call it.

    The learner is the part that should never wait for a core. With fewer cores than processes
    the scheduler would take it off its core a thousand times a second for work that has time.
    """
    os.nice(_NICE)


def give_most_way() -> None:
    """Lowers it as far as it goes; for those that compute all the time, acting.

    An update on several cores stands still on each while one of them does something else.
    Beside an update on one core it would be too much: of many workers those that are on the
    learner's core would hardly run, and with them the last one to act on new weights.
    """
    os.nice(_NICEST)
