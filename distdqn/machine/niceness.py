"""Which actors give way where cores are scarce.

The learner is the part that should never wait for a core. On a machine with fewer
cores than processes the scheduler would else take it off its core a thousand times a
second for work that has time.
"""

from __future__ import annotations

import os

_STEP = 10  # the scheduler then gives the learner nine times the share
_LOWEST = 19


def give_way() -> None:
    """Lowers this process's priority; every actor but the learner and control calls it."""
    os.nice(_STEP)


def give_most_way() -> None:
    """Lowers it as far as it goes; for those that compute all the time, acting.

    An update on several cores stands still on each while one of them does something else.
    Beside an update on one core it would be too much: of many workers those that are on the
    learner's core would hardly run, and with them the last one to act on new weights.
    """
    os.nice(_LOWEST)
