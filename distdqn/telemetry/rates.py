"""Rates over a sliding window, and figures that are not computed more often than they are worth."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

_P = ParamSpec("_P")


_T = TypeVar("_T")


class RateMeter:
    """Events per second over a sliding window of observations `(time, total)`."""

    def __init__(self, window_s: float = 5.0):
        self._window_s = window_s
        self._seen: collections.deque[tuple[float, float]] = collections.deque()

    def observe(self, now: float, total: float) -> None:
        self._seen.append((now, total))
        while len(self._seen) > 2 and now - self._seen[1][0] >= self._window_s:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        if len(self._seen) < 2:
            return math.nan
        (t0, first), (t1, last) = self._seen[0], self._seen[-1]
        return (last - first) / (t1 - t0) if t1 > t0 else math.nan


class Sparingly(Generic[_P, _T]):
    """Calls `function`, but for all calls together at most a hundredth of the time.

    In between the last value is given again, for a second at most: for figures that are
    asked for more often than they are worth.
    """

    def __init__(self, function: Callable[_P, _T]):
        self._function = function
        self._value: _T
        self._due = -math.inf

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        began = time.perf_counter()
        if began >= self._due:
            self._value = self._function(*args, **kwargs)
            ended = time.perf_counter()
            self._due = ended + min(99.0 * (ended - began), 1.0)
        return self._value

    def expire(self) -> None:
        """The next call computes anew."""
        self._due = -math.inf
