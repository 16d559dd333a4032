"""Large arrays out of memory that the process has already.

glibc gives freed memory beyond 32 MB back to the system and asks for it again: a superbatch
of pictures then pays for zeroed pages as much as for its copy (58 MB: 20 ms, from kept memory
7.5 ms).
"""

from __future__ import annotations

import contextlib
import ctypes

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
