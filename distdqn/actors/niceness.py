"""Which actors give way where cores are scarce.

The learner is the part that should never wait for a core. On a machine with fewer
cores than processes the scheduler would else take it off its core a thousand times a
second for work that has time.
"""

from __future__ import annotations

import os

_STEP = 10  # the scheduler then gives the learner nine times the share; 19 is the lowest


def give_way() -> None:
    """Lowers this process's priority; every actor but the learner and control calls it."""
    os.nice(_STEP)
