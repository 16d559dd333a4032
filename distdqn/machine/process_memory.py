"""Memory that this process and its descendants take.

PSS counts a page shared by n processes as 1/n of it in each, so the sum over a
process tree is what the machine really gives.
"""

from __future__ import annotations

import contextlib
import ctypes


def tree_pss_bytes(pid: int | None = None) -> int:
    """Sum of PSS over a process and its descendants; RSS where there is no PSS."""
    import psutil

    root = psutil.Process(pid)
    total = 0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss)
    return total


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_KEPT_BYTES = 2**30


def keep_freed_memory() -> None:
    """From now on up to a GiB of freed memory stays with the process; without glibc nothing.

    Call it once the large arrays that stay are there: those that come later lie on the heap,
    between the ones that go.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
