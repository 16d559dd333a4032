"""Memory: what is free, what /dev/shm has, what processes take and keep."""

import contextlib
import ctypes
import os
import shutil
from pathlib import Path

from distdqn.machine.groups import control_groups

_GROUPS, _PROC = Path("/sys/fs/cgroup"), Path("/proc")
_MIN_SHARED_BYTES = 1 << 30
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_KEPT_BYTES = 2**30


def free_memory(group: Path = _GROUPS, proc: Path = _PROC) -> int:
    """Bytes free on this machine, or in this process's control groups where that is less.

    group, proc: see `control_groups`.  Files that are only kept in memory count as free.
    """
    import psutil

    free = psutil.virtual_memory().available
    for folder in control_groups(group, proc):
        with contextlib.suppress(OSError, ValueError, KeyError):
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            free = min(free, _left(folder, "memory") + int(stat["inactive_file"]))
    return max(free, 0)


def free_swap(group: Path = _GROUPS, proc: Path = _PROC) -> int:
    """Bytes of swap that are free, or that the control groups leave; see `free_memory`."""
    import psutil

    free = psutil.swap_memory().free
    for folder in control_groups(group, proc):
        with contextlib.suppress(OSError, ValueError):
            free = min(free, _left(folder, "memory.swap"))
    return max(free, 0)


def _left(folder: Path, what: str) -> int:
    """Of a control group; ValueError where it has no limit ("max"), OSError where no group."""
    limit, used = (int((folder / f"{what}.{name}").read_text()) for name in ("max", "current"))
    return limit - used


def shared_memory() -> tuple[str, str]:
    """What is free in /dev/shm, where Ray's object store lives, and what to do about it, or ""."""
    if not os.path.isdir("/dev/shm"):
        return "this system has none", ""
    free = shutil.disk_usage("/dev/shm").free
    advice = "Ray falls back to slow files on disk; give a container more: docker run --shm-size=2g"
    return f"{free / 2**20:.0f} MiB free", "" if free >= _MIN_SHARED_BYTES else advice


def tree_pss_bytes(pid: int | None = None) -> int:
    """Sum of PSS over a process and its descendants; RSS where there is no PSS.

    PSS counts a page shared by n processes as 1/n of it in each, so the sum over a process
    tree is what the machine really gives.
    """
    import psutil

    root = psutil.Process(pid)
    total = 0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss)
    return total


def keep_freed_memory() -> None:
    """From now on up to a GiB of freed memory stays with the process; without glibc nothing.

    Call it once the large arrays that stay are there: those that come later lie on the heap,
    between the ones that go.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
