"""Pulls newer weights without blocking the loop that uses them.

One question is always under way at the weight server, which answers it when
something newer is published; `poll` only looks whether the answer has come.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from typing import Any

import ray

from distdqn.types import BEFORE_ANY, WeightSnapshot

_LONG_POLL_S = 5.0


class WeightClient:
    """Asks `server` for weights newer than those it got last.

    Large vectors come as views of shared memory that nobody can write to; they take room
    there for as long as they are held.
    """

    def __init__(self, server: Any):
        self._server = server
        self._version = self._target_version = BEFORE_ANY
        # Ray fulfils the future by itself: a look costs nothing, one by ray.wait 0.1 ms.
        self._asked: concurrent.futures.Future | None = None

    def poll(self, timeout_s: float = 0.0) -> WeightSnapshot | None:
        """A newer snapshot if one has come (within `timeout_s`), else None.

        Raises:
          RayError: the server died.
        """
        if self._asked is None:
            self._ask()
        assert self._asked is not None
        if not self._asked.done() and not _comes(self._asked, timeout_s):
            return None
        snapshot: WeightSnapshot | None = self._asked.result()
        if snapshot is not None:
            snapshot = dataclasses.replace(
                snapshot, online=_fetched(snapshot.online), target=_fetched(snapshot.target)
            )
            self._version = snapshot.version
            if snapshot.target is not None:
                self._target_version = snapshot.target_version
        self._ask()
        return snapshot

    def _ask(self) -> None:
        question = self._server.newer.remote(self._version, self._target_version, _LONG_POLL_S)
        self._asked = question.future()


def _comes(answer: concurrent.futures.Future, timeout_s: float) -> bool:
    return bool(timeout_s) and bool(concurrent.futures.wait([answer], timeout_s).done)


def _fetched(vector: Any) -> Any:
    return ray.get(vector) if isinstance(vector, ray.ObjectRef) else vector
