"""Shared memory, where Ray's object store lives.

Ray falls back to slow files on the disk where /dev/shm is too small.
"""

from __future__ import annotations

import os
import shutil

_MIN_BYTES = 1 << 30


def shared_memory() -> tuple[str, str]:
    """What is free in /dev/shm, and what to do where that is too little, else ""."""
    if not os.path.isdir("/dev/shm"):
        return "this system has none", ""
    free = shutil.disk_usage("/dev/shm").free
    advice = "Ray falls back to slow files on disk; give a container more: docker run --shm-size=2g"
    return f"{free / 2**20:.0f} MiB free", "" if free >= _MIN_BYTES else advice
