"""Counters, rates and quantiles, one name each.

`RunStatus` is the one picture of a run that the display, TensorBoard,
`metrics.jsonl`, `status` and the summary all draw from; `SCALARS` maps it to the
names under which TensorBoard users look for them.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

import numpy as np

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Where every transition went; `collected` is the sum of the other four."""

    collected: int = 0
    accepted: int = 0
    refused: int = 0
    in_flight: int = 0
    lost: int = 0

    def check_valid(self) -> tuple[bool, str]:
        parts = self.accepted + self.refused + self.in_flight + self.lost
        return parts == self.collected, f"collected {self.collected}, parts sum to {parts}"


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """A run at one moment. Rates are per second over the last seconds; nan before any.

    env_steps counts agent steps that yield a transition, gradient_steps updates.
    staleness: weight versions between the newest and the one that acted.
    q_start_mean, return_start_mean: of the newest evaluation, largest value of its first
      observations and discounted return then realised.
    q_abs_max, q_bound, soft_divergence: see `value_diagnostics`; the last is 0.0 or 1.0.
    td_error_abs_*: of the newest minibatches.  priority_*: of the items held.
    stale_fraction_*: share of the items held that are older than so many weight versions.
    """

    state: str = "starting"
    elapsed_s: float = 0.0
    env_steps: int = 0
    total_env_steps: int = 0
    gradient_steps: int = 0
    samples_per_insert: float = math.nan
    env_steps_per_s: float = math.nan
    gradient_steps_per_s: float = math.nan
    workers_target: int = 0
    workers_alive: int = 0
    worker_restarts: int = 0
    shards_target: int = 0
    shards_alive: int = 0
    shard_restarts: int = 0
    learner_restarts: int = 0
    shard_items: tuple[int, ...] = ()
    items_lost: int = 0
    replay_size: int = 0
    priority_max: float = math.nan
    learner_version: tuple[int, ...] = (0, 0)
    learner_wait_fraction: float = math.nan
    worker_wait_fraction: float = math.nan
    staleness_p50: float = math.nan
    staleness_p95: float = math.nan
    transitions: Ledger = Ledger()
    train_return_mean: float = math.nan
    eval_return_mean: float = math.nan
    best_eval_return_mean: float = math.nan
    td_loss: float = math.nan
    q_values: float = math.nan
    grad_norm: float = math.nan
    td_error_abs_p50: float = math.nan
    td_error_abs_p95: float = math.nan
    td_error_abs_max: float = math.nan
    priority_p50: float = math.nan
    priority_p95: float = math.nan
    stale_fraction_10: float = math.nan
    stale_fraction_100: float = math.nan
    q_start_mean: float = math.nan
    return_start_mean: float = math.nan
    q_abs_max: float = math.nan
    q_bound: float = math.nan
    soft_divergence: float = math.nan
    epsilon: float = math.nan
    learning_rate: float = math.nan
    compiled: bool = False

    @property
    def eta_s(self) -> float:
        """Seconds until `total_env_steps` at the present rate; nan where unknown."""
        if not self.env_steps_per_s > 0:
            return math.nan
        return (self.total_env_steps - self.env_steps) / self.env_steps_per_s


SCALARS = {
    "charts/env_steps_per_s": "env_steps_per_s",
    "charts/gradient_steps_per_s": "gradient_steps_per_s",
    "charts/samples_per_insert": "samples_per_insert",
    "charts/staleness": "staleness_p50",
    "charts/epsilon": "epsilon",
    "charts/learning_rate": "learning_rate",
    "charts/learner_wait_fraction": "learner_wait_fraction",
    "charts/worker_wait_fraction": "worker_wait_fraction",
    "losses/td_loss": "td_loss",
    "losses/q_values": "q_values",
    "losses/grad_norm": "grad_norm",
    "losses/td_error_abs_p50": "td_error_abs_p50",
    "losses/td_error_abs_p95": "td_error_abs_p95",
    "losses/td_error_abs_max": "td_error_abs_max",
    "values/q_start": "q_start_mean",
    "values/return_start": "return_start_mean",
    "values/q_abs_max": "q_abs_max",
    "values/q_bound": "q_bound",
    "values/soft_divergence": "soft_divergence",
    "replay/size": "replay_size",
    "replay/priority_max": "priority_max",
    "replay/priority_p50": "priority_p50",
    "replay/priority_p95": "priority_p95",
    "replay/stale_fraction_10": "stale_fraction_10",
    "replay/stale_fraction_100": "stale_fraction_100",
    "workers/count": "workers_alive",
}
"""TensorBoard tag to `RunStatus` field. The two return charts are written per episode."""


def scalars(status: RunStatus) -> dict[str, float]:
    """The finite scalars of `status` by TensorBoard tag."""
    values = {tag: float(getattr(status, field)) for tag, field in SCALARS.items()}
    return {tag: value for tag, value in values.items() if math.isfinite(value)}


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


class CountHistogram:
    """Counts of small non-negative integers, the last bin open.

    Bounded whatever is observed; `quantile` is exact below `num_bins - 1`.
    """

    def __init__(self, num_bins: int = 1024, counts: np.ndarray | None = None):
        self.counts = np.zeros(num_bins, np.int64) if counts is None else counts

    def observe(self, value: int, weight: int = 1) -> None:
        self.counts[min(max(value, 0), len(self.counts) - 1)] += weight

    def merged(self, other: np.ndarray) -> CountHistogram:
        return CountHistogram(counts=self.counts + other)

    def quantile(self, q: float) -> float:
        """Smallest value with at least the share `q` of the counts at or below it."""
        total = self.counts.sum()
        if not total:
            return math.nan
        return float(np.searchsorted(np.cumsum(self.counts), q * total))


class LogHistogram:
    """Counts of non-negative numbers in bins a factor 2^(1/4) wide, from 1e-6 to 1e6.

    What lies below shares one bin with 0, what lies above another, and so do infinity
    and NaN: a histogram that dropped them would look healthy. Counts may be fractions, as
    after `scaled`.

    counts: `[162]` float64, the first and last bin open.
    largest: of all observed, exactly; NaN before any, infinite once one was NaN.
    """

    EDGES = 1e-6 * 2.0 ** (np.arange(161) / 4)  # the last is 1.07e6

    def __init__(self, values: np.ndarray | None = None):
        """values: `[B]` to begin with."""
        self.counts = np.zeros(len(self.EDGES) + 1)
        self.largest = math.nan
        if values is not None and len(values):
            values = np.where(np.isnan(values), math.inf, values)
            bins = np.searchsorted(self.EDGES, values, side="right")
            self.counts += np.bincount(bins, minlength=len(self.counts))
            self.largest = float(values.max())

    @property
    def total(self) -> float:
        return float(self.counts.sum())

    def scaled(self, total: float) -> LogHistogram:
        """The same shape with counts that sum to `total`: a sample stands for all."""
        scaled = LogHistogram()
        scaled.largest = self.largest
        if self.total:
            scaled.counts = self.counts * (total / self.total)
        return scaled

    def merged(self, other: LogHistogram) -> LogHistogram:
        merged = LogHistogram()
        merged.counts = self.counts + other.counts
        merged.largest = float(np.fmax(self.largest, other.largest))
        return merged

    def quantile(self, q: float) -> float:
        """Geometric middle of the bin that `q` falls into, 9 percent off at most; never
        above `largest`. 0 in the lowest bin, `largest` in the highest, NaN without values.
        """
        if not self.total:
            return math.nan
        reached = np.cumsum(self.counts)
        index = int(np.searchsorted(reached, q * reached[-1]))
        if index == 0:
            return 0.0
        if index >= len(self.EDGES):
            return self.largest
        return float(min(self.EDGES[index] * 2.0**-0.125, self.largest))

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts `[n]` and their edges `[n + 1]`, from the first bin in use to the last.

        The edges are finite: the lowest bin begins at 0, the highest ends at `largest`, or
        at twice its lower edge where that is infinite. Both are empty without values.
        """
        used = np.flatnonzero(self.counts)
        if not len(used):
            return np.zeros(0), np.zeros(0)
        top = self.EDGES[-1] * 2.0
        if math.isfinite(self.largest):
            top = max(top, self.largest)
        edges = np.concatenate([[0.0], self.EDGES, [top]])
        first, last = used[0], used[-1] + 1
        return self.counts[first:last], edges[first : last + 1]


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
