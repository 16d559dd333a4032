"""Shards that sample at once, each in a process of its own.

No Ray: what is measured is how far the machine's cores and memory serve several replays,
not the way to them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from distdqn.bench.children import Child
from distdqn.bench.measure import peak_bytes
from distdqn.bench.replay_work import Point, ReplayWork

_TIMEOUT_S = 120.0  # beyond the time asked for


class Shards:
    """Processes with a replay each; to be left by `with`, which ends them.

    pids: of the processes.

    Raises RunError where one does not start or does not answer.
    """

    def __init__(self, point: Point, count: int) -> None:
        with contextlib.ExitStack() as stack:
            self._children = [
                stack.enter_context(Child("a shard of the benchmark", ReplayWork, point, keep=True))
                for _ in range(count)
            ]
            for child in self._children:
                child.answer(_TIMEOUT_S)
            self._stack = stack.pop_all()
        self.pids = [child.process.pid or 0 for child in self._children]

    def run(self, work: str, seconds: float) -> int:
        """All do that work for so long, at once; the sum of their transitions."""
        return self._ask(_TIMEOUT_S + seconds, _repeat, work, seconds)

    def peak_bytes(self) -> int:
        """Of all the processes together."""
        return self._ask(_TIMEOUT_S, _peak)

    def _ask(self, timeout_s: float, question: Callable[..., int], *arguments: Any) -> int:
        for child in self._children:
            child.ask(question, *arguments)
        return sum(child.answer(timeout_s) for child in self._children)

    def __enter__(self) -> Shards:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _peak(_: ReplayWork) -> int:
    return peak_bytes()


def _repeat(work: ReplayWork, name: str, seconds: float) -> int:
    call = getattr(work, name)
    ends, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < ends:
        done += call()
    return done
