"""Memory that a run takes and needs.

PSS counts a page shared by n processes as 1/n of it in each, so the sum over a
process tree is what the machine really gives.
"""

from __future__ import annotations

import contextlib

import psutil

from distdqn.errors import ResourceError


def tree_pss_bytes(pid: int | None = None) -> int:
    """Sum of PSS over a process and its descendants; RSS where there is no PSS."""
    root = psutil.Process(pid)
    total = 0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss)
    return total


def check_replay_fits(needed_bytes: int, capacity: int) -> None:
    """Refuses, before the start, a replay that this machine's memory cannot hold."""
    available = psutil.virtual_memory().available
    if needed_bytes > available:
        raise ResourceError(
            f"replay.capacity {capacity:,} needs {needed_bytes / 2**30:.1f} GiB and "
            f"{available / 2**30:.1f} GiB are free; lower --replay.capacity to about "
            f"{int(capacity * 0.8 * available / needed_bytes):,}"
        )
