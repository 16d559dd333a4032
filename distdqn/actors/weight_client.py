"""Pulls newer weights without blocking the loop that uses them.

One question is always under way at the weight server, which answers it when
something newer is published; `poll` only looks whether the answer has come.
"""

from __future__ import annotations

import time
from typing import Any

import ray

from distdqn.types import BEFORE_ANY, WeightSnapshot

_LONG_POLL_S = 5.0


class WeightClient:
    """Asks `server` for weights newer than those it got last.

    poll_period_s: how often `poll` looks at most; a look costs about 0.1 ms.
    """

    def __init__(self, server: Any, poll_period_s: float = 0.005):
        self._server, self._poll_period_s = server, poll_period_s
        self._version = self._target_version = BEFORE_ANY
        self._asked: ray.ObjectRef | None = None
        self._next_look = 0.0

    def poll(self, timeout_s: float = 0.0) -> WeightSnapshot | None:
        """A newer snapshot if one has come (within `timeout_s`), else None."""
        now = time.monotonic()
        if now < self._next_look and not timeout_s:
            return None
        self._next_look = now + self._poll_period_s
        if self._asked is None:
            self._ask()
        if not ray.wait([self._asked], timeout=timeout_s)[0]:
            return None
        answer, self._asked = ray.get(self._asked), None
        snapshot = ray.get(answer[0]) if isinstance(answer, list) else answer
        if snapshot is not None:
            self._version = snapshot.version
            if snapshot.target is not None:
                self._target_version = snapshot.target_version
        self._ask()
        return snapshot

    def _ask(self) -> None:
        self._asked = self._server.newer.remote(self._version, self._target_version, _LONG_POLL_S)
