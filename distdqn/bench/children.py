"""Child processes that leave Ctrl-C to their parent.

A terminal sends it to every process; a child that obeyed would print a traceback, even
while it still imports.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from multiprocessing import resource_tracker


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Processes started within it never see Ctrl-C; this one does, at the end at the latest."""
    # The tracker, started with the first child, would take the block away again.
    resource_tracker.ensure_running()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
