"""Rates over a sliding window, and figures that are not computed more often than they are worth."""

import collections
import math
import time
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_WINDOW_S = 5.0


class RateMeter:
    """Events per second over a sliding window of observations `(time, total)`."""

    def __init__(self) -> None:
        self._seen: collections.deque[tuple[float, float]] = collections.deque()

    def rate(self, now: float, total: float) -> float:
        """With one more observation; NaN with one alone, as after a total that has fallen."""
        if self._seen and total < self._seen[-1][1]:  # a learner went on from its last snapshot
            self._seen.clear()
        self._seen.append((now, total))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW_S:
            self._seen.popleft()
        began, first = self._seen[0]
        return (total - first) / (now - began) if now > began else math.nan


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
