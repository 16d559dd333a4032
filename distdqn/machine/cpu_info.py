"""What the CPU is and can do, in words.

Linux tells it in /proc/cpuinfo; elsewhere there is the platform's name for the processor.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from pathlib import Path


@functools.cache
def cpu_info(*names: str) -> str:
    """The value of the first line with one of these names, in small letters."""
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
